"""Where a training stands: enough to go on as if it had never stopped."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.store import write_text
from schemas.errors import InputError

__all__ = ["CHECKPOINT", "Checkpoint", "JsonlLog", "MetricLog", "load", "restore", "save"]

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Checkpoint:
    """What is kept.

    Attributes:
        step: steps that were made.
        about: settings and data, as `about_training` tells them.
        trained: weights by name, of those that learn.
        optimizer: its state.
        random: states of the random numbers, of the processor and of each accelerator.
    """

    step: int
    about: Mapping[str, Any]
    trained: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    random: tuple[Tensor, ...]


def save(folder: Path, step: int, about: Mapping[str, Any], model: nn.Module, optimizer: Any) -> Path:
    """Put a checkpoint in the place of the last one, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]
    trained = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
    content = {
        "step": step,
        "about": json.dumps(dict(about)),
        "trained": trained,
        "optimizer": optimizer.state_dict(),
        "random": states,
    }
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{CHECKPOINT}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(folder / CHECKPOINT)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return folder / CHECKPOINT


def load(folder: Path, about: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint in a folder; None where there is none.

    Raises:
        InputError: when it is damaged, or of another training.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        was = json.loads(found["about"])
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({error}); delete the folder to begin anew") from error
    differs = [key for key in {**about, **was} if was.get(key) != about.get(key)]
    if differs:
        told = ", ".join(f"{key} was {was.get(key)}, is {about.get(key)}" for key in sorted(differs))
        raise InputError(f"{path}: of another training ({told}); name another --out, or delete the folder")
    return Checkpoint(found["step"], was, found["trained"], found["optimizer"], tuple(found["random"]))


def restore(found: Checkpoint, model: nn.Module, optimizer: Any) -> None:
    """Put weights, optimizer and random states back."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(found.trained[name])
    optimizer.load_state_dict(found.optimizer)
    torch.set_rng_state(found.random[0])
    if torch.cuda.is_available() and len(found.random) > 1:
        torch.cuda.set_rng_state_all(list(found.random[1:]))


class MetricLog:
    """Where the figures of each step go; this one drops them."""

    def begin(self, step: int) -> None:
        """Go on after this many steps; figures of later ones are of a run that was cut off."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take down the figures of a step, counted from 1."""


class JsonlLog(MetricLog):
    """A line of JSON for each step."""

    def __init__(self, folder: Path) -> None:
        """Name the folder of `metrics.jsonl`."""
        self._path = folder / METRICS

    def begin(self, step: int) -> None:
        """Take out lines of later steps."""
        lines = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        write_text(self._path, "".join(f"{line}\n" for line in lines if _step(line) <= step))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | dict(figures)) + "\n")


def _step(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return float("inf")  # a line that was cut off
