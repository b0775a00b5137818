"""Params of where heavy work runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from schemas.params._base import Strict

__all__ = ["Execution"]


class Execution(Strict):
    """Who does the work that asks no endpoint. Nothing that is made depends on it: no stage key holds it."""

    runner: Literal["threads", "ray", "dask"] = Field(
        default="threads", description="threads: the cores of this machine; else workers of a cluster"
    )
    address: str | None = Field(
        default=None,
        min_length=1,
        description="of the cluster, such as auto, ray://host:10001 or tcp://host:8786; "
        "null: one of its own on this machine",
    )
    workers: int | None = Field(
        default=None, ge=1, description="how many work at the same time; null: as many as there are cores"
    )
    gpus_per_worker: float = Field(
        default=1.0, gt=0, description="the share of a GPU for each worker of what params put on cuda"
    )

    @model_validator(mode="after")
    def _joined(self) -> Execution:
        if self.address is not None and self.runner == "threads":
            raise ValueError("address: threads are of this machine; write runner: ray or runner: dask")
        return self
