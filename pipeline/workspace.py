"""A workspace: the folder with `params.yaml`, and what a stage is given to work with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from schemas.errors import InputError
from schemas.params import Params, load_params
from schemas.queries import ClassScenes, load_scenes
from schemas.taxonomy import ClassInfo, Taxonomy, load_taxonomy
from schemas.taxonomy_lock import check_lock

__all__ = ["Progress", "Silent", "Workspace"]


class Progress(Protocol):
    """Where a stage reports how far it is."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a new count of `total` items called `what`."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more items."""


class Silent:
    """A progress that shows nothing."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a new count."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more items."""


@dataclass(frozen=True)
class Workspace:
    """The folder a build works in. Reads its configuration once and checks all of it."""

    root: Path

    @cached_property
    def params(self) -> Params:
        """The checked `params.yaml`."""
        return load_params(self.root)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The checked taxonomy, cut down to `only_classes` where params name some."""
        path = self.root / self.params.taxonomy
        taxonomy = load_taxonomy(path)
        check_lock(taxonomy, path)
        known = {c.name for c in taxonomy.classes()}
        for field in ("only_classes", "quotas"):
            if unknown := [name for name in getattr(self.params, field) if name not in known]:
                raise InputError(
                    f"{self.root / 'params.yaml'}: {field}: the taxonomy has no class {unknown[0]!r}"
                )
        return taxonomy

    @cached_property
    def scenes(self) -> dict[str, ClassScenes]:
        """The checked query scenes by class."""
        return load_scenes(self.root / self.params.prompts / "queries", self.taxonomy)

    def classes(self) -> list[ClassInfo]:
        """The classes that this build covers."""
        wanted = self.params.only_classes
        return [c for c in self.taxonomy.classes() if not wanted or c.name in wanted]

    def stage_dir(self, stage: str) -> Path:
        """Where `stage` leaves its tables."""
        return self.root / "data" / ("dataset" if stage == "assemble" else stage)

    @property
    def state(self) -> Path:
        """Call cache, stage keys, ledger and partial work: outside what DVC may delete."""
        return self.root / ".holisafe"

    @property
    def calls(self) -> Path | str:
        """The call cache: a file here, or the PostgreSQL database that `HOLISAFE_CALLS` names."""
        return os.environ.get("HOLISAFE_CALLS") or self.state / "calls.sqlite"

    @property
    def blobs(self) -> Path | str:
        """The images that calls name by hash: a folder here, or the URL that `HOLISAFE_BLOBS` names."""
        said = os.environ.get("HOLISAFE_BLOBS")
        if not said:
            return self.state / "blobs"
        return said if "://" in said else Path(said)

    @property
    def shares_blobs(self) -> bool:
        """Whether others may keep images in the same place."""
        return bool(os.environ.get("HOLISAFE_BLOBS"))

    @property
    def features(self) -> Path:
        """The images' embeddings, by encoder."""
        return self.state / "features" / "features.sqlite"

    @property
    def fetched(self) -> Path:
        """What URLs gave: bytes by hash, and the ledger."""
        return self.state / "fetched"

    def check(self) -> None:
        """Load every file that people write, so that a mistake shows before any work.

        Raises:
            InputError: the first problem found.
        """
        # Imported here, since the stages import this module.
        from pipeline.annotators.panel import check_prompts
        from pipeline.collect.stage import check as check_collect
        from pipeline.encoders import check_encoder
        from pipeline.generate.policy import check_makers
        from pipeline.generate.prompts import load_image_prompt
        from pipeline.respond.prompts import load_writer_prompts
        from pipeline.synthesize.stage import check as check_quotas
        from pipeline.taxonomy_edit import check_finished
        from schemas.responses import load_response_styles
        from schemas.reviews import load_reviews

        _ = self.params, self.taxonomy, self.scenes
        check_finished(self.root / self.params.taxonomy, self.taxonomy.model_dump())
        for name, scenes in self.scenes.items():
            check_finished(self.root / self.params.prompts / "queries", {name: scenes.model_dump()})
        check_prompts(self)
        load_response_styles(self.root / self.params.prompts / "responses.yaml")
        load_image_prompt(self.root / self.params.prompts / "generate" / "image_prompt.yaml")
        load_writer_prompts(self.root / self.params.prompts / "respond")
        check_makers(self.params, self.classes(), self.root / "params.yaml")
        check_encoder(self.params.encoder, self.root)
        load_reviews(self.root, frozenset(info.name for info in self.taxonomy.classes()))
        check_collect(self)
        check_quotas(self)
