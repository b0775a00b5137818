"""The whole of params."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from schemas.errors import InputError, load_yaml, validated
from schemas.params._base import Share, Strict
from schemas.params.collect import Collect, UrlsSource, WebDatasetSource
from schemas.params.encoder import Encoder
from schemas.params.endpoints import (
    ASKED,
    Annotators,
    Budget,
    EmbeddedEndpoint,
    Endpoint,
    RemoteEndpoint,
    ScriptedEndpoint,
)
from schemas.params.execution import Execution
from schemas.params.generate import Generate
from schemas.params.respond import Respond
from schemas.taxonomy import PAIR_TYPES, PairType

__all__ = ["Assemble", "Curate", "LabelPairs", "Params", "Split", "Synthesize", "Thresholds", "load_params"]


_TASKS = ("image_prompt", "picture", "query", "response")
"""What endpoints are asked for beside votes."""


class Curate(Strict):
    """How images are decoded, normalised and deduplicated."""

    max_pixels: int = Field(gt=0, description="an image that declares more is rejected unread")
    max_side: int = Field(ge=64, description="longer sides are scaled down to this")
    jpeg_quality: int = Field(ge=50, le=100)
    near_duplicate_bits: int = Field(ge=0, le=16, description="of a 64-bit perceptual hash")
    near_duplicate_bits_fine: int = Field(ge=0, le=100, description="of a 256-bit one; both must hold")
    leak_bits: int = Field(ge=0, le=16, description="this near, images stay on one side of the split")
    leak_bits_fine: int = Field(ge=0, le=100, description="of the 256-bit one; both must hold")
    leak_cosine: float | None = Field(
        gt=0,
        le=1,
        description="as near by the encoder's embeddings, images stay on one side too; null: not asked",
    )
    nudity_reject: Share
    signals: list[Literal["nudity", "text", "faces"]] = Field(
        description="what is looked for in every image; without `nudity` none is rejected for it"
    )


class Split(Strict):
    """How groups are divided into train and test."""

    test_share: Share


class Thresholds(Strict):
    """P(unsafe) from which an item counts as unsafe, measured on gold labels (docs/quality.md)."""

    image_safe: Share
    text_safe: Share
    pair_safe: Share


class Synthesize(Strict):
    """Who writes queries, and how many squares are drafted."""

    writer: str | None = Field(
        default=None, description="the endpoint that writes queries; null: they are made from templates"
    )
    surplus: float = Field(ge=1, description="squares drafted for each square wanted")
    attempts: int = Field(default=3, ge=1, le=10, description="how often a writer is asked for one square")
    opening_share: Share = Field(
        default=0.1,
        description="the most of a class's written queries that may begin with the same three words",
    )


class LabelPairs(Strict):
    """How often short cells are topped up from the surplus."""

    rounds: int = Field(ge=1, le=10)


class Assemble(Strict):
    """What goes into the dataset."""

    images: Literal["redistributable", "all"] = Field(
        description="which images come with their bytes; rows and URLs of the others stay"
    )


class Params(Strict):
    """The whole file."""

    profile: Literal["embedded", "holisafe", "rehearsal"]
    tier: Literal["demo", "standard"] = Field(
        description="demo: no claim of quality rests on it; so with embedded or scripted models alone"
    )
    seed: int = Field(ge=0)
    taxonomy: Path
    prompts: Path
    quota_scale: float = Field(gt=0)
    quotas: dict[str, dict[PairType, Annotated[int, Field(ge=0)]]] = Field(
        default={}, description="pairs by class and type, in place of the taxonomy's"
    )
    only_classes: list[str] = Field(default=[], description="empty: every class of the taxonomy")
    collect: Collect
    generate: Generate
    curate: Curate
    split: Split
    endpoints: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], Endpoint]
    annotators: Annotators
    egress: dict[str, list[str]] = Field(
        default={}, description="for each endpoint that sees pixels the classes whose images it may be sent"
    )
    budget: Budget
    encoder: Encoder
    thresholds: Thresholds
    synthesize: Synthesize
    label_pairs: LabelPairs
    respond: Respond
    assemble: Assemble
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _ordered(self) -> Params:
        for name in ("bits", "bits_fine"):
            if getattr(self.curate, f"leak_{name}") < getattr(self.curate, f"near_duplicate_{name}"):
                raise ValueError(f"curate.leak_{name} must be at least curate.near_duplicate_{name}")
        return self

    @field_validator("quotas")
    @classmethod
    def _every_type(cls, quotas: dict[str, dict[PairType, int]]) -> dict[str, dict[PairType, int]]:
        for name, given in quotas.items():
            if missing := [t for t in PAIR_TYPES if t not in given]:
                raise ValueError(f"{name}: no quota for {', '.join(missing)}; write 0 where none is wanted")
        return quotas

    @model_validator(mode="after")
    def _known_voters(self) -> Params:
        used = set()
        for question in ASKED:
            names = getattr(self.annotators, question)
            if unknown := [name for name in names if name not in self.endpoints]:
                raise ValueError(f"annotators.{question}: there is no endpoint {unknown[0]!r}")
            if len(set(names)) < len(names):
                raise ValueError(f"annotators.{question}: an endpoint votes twice")
            used |= set(names)
        if len({self.endpoints[name].kind == "scripted" for name in used}) > 1:
            raise ValueError("annotators: scripted endpoints and real ones cannot vote in one build")
        return self

    @model_validator(mode="after")
    def _known_response_writer(self) -> Params:
        writer = self.respond.writer
        if writer is not None and writer not in self.endpoints:
            raise ValueError(f"respond.writer: there is no endpoint {writer!r}")
        return self

    @model_validator(mode="after")
    def _agreed_egress(self) -> Params:
        for name in self.egress:
            if name not in self.endpoints:
                raise ValueError(f"egress.{name}: there is no such endpoint")
        for question in ("query", "image_safe", "pair_safe", "harm", "response"):
            for name, said in self.voters(question).items():
                if said.kind == "embedded" and said.sees == "pixels":
                    raise ValueError(f"endpoints.{name}.sees: the embedded models see no pixels; write words")
                if said.sees == "pixels" and name not in self.egress:
                    raise ValueError(
                        f"egress: no images may leave for {name!r}; write {name}: [class, …] or {name}: [all]"
                    )
        return self

    @model_validator(mode="after")
    def _known_makers(self) -> Params:
        for i, maker in enumerate(self.generate.pictures):
            if maker.kind != "images_api":
                continue
            said = self.endpoints.get(maker.endpoint)
            where = f"generate.pictures.{i}.endpoint"
            if said is None:
                raise ValueError(f"{where}: there is no endpoint {maker.endpoint!r}")
            if said.kind == "embedded" or said.batch:
                raise ValueError(f"{where}: {maker.endpoint!r} is embedded or batched, and makes no pictures")
        writer = self.generate.writer
        if writer is not None and writer not in self.endpoints:
            raise ValueError(f"generate.writer: there is no endpoint {writer!r}")
        if len({self.endpoints[name].kind == "scripted" for name in self.asked()}) > 1:
            raise ValueError(
                "generate, respond, synthesize: scripted endpoints and real ones cannot serve one build"
            )
        if writer is not None:
            self._no_captions_by_voters(writer)
        return self

    def _no_captions_by_voters(self, writer: str) -> None:
        for question in ("image_safe", "pair_safe", "harm"):
            for name, said in self.voters(question).items():
                if said.sees == "words" and said.family == self.endpoints[writer].family:
                    raise ValueError(
                        f"generate.writer: {writer!r} would write the captions by which {name!r}, of "
                        f"the same family, votes on {question}; name a writer of another family"
                    )

    @model_validator(mode="after")
    def _independent_writer(self) -> Params:
        writer = self.synthesize.writer
        if writer is None:
            return self
        if writer not in self.endpoints:
            raise ValueError(f"synthesize.writer: there is no endpoint {writer!r}")
        self.keep_apart(writer, "synthesize.writer")
        return self

    @model_validator(mode="after")
    def _rehearsed(self) -> Params:
        asked = [name for name in self.asked() if self.endpoints[name].kind != "scripted"]
        if self.generate.placeholders and asked:
            raise ValueError(f"generate.placeholders: are for rehearsals, and {asked[0]!r} is not scripted")
        return self

    @model_validator(mode="after")
    def _marked_demo(self) -> Params:
        asked = {self.endpoints[name].kind for name in self.asked()}
        if self.tier != "demo" and not asked & {"remote"}:
            raise ValueError("tier: a build that asks embedded or scripted models alone is `demo`")
        return self

    def keep_apart(self, writer: str, where: str) -> None:
        """See that nobody judges queries that a model of the same family has written.

        Args:
            writer: the endpoint that writes queries.
            where: its place in params, for the message.

        Raises:
            ValueError: when its family votes on texts or pairs, or says whom a pair harms.
        """
        family = self.endpoints[writer].family
        for question in ("text_safe", "pair_safe", "harm"):
            for name, said in self.voters(question).items():
                if said.family == family:
                    raise ValueError(
                        f"{where}: {writer!r} would write the queries that {name!r}, of the same family, "
                        f"judges (annotators.{question}); name a writer of another family, or take {name!r} "
                        "away there"
                    )

    def annotation_prompt(self, question: str, *, clauses: bool | None = None) -> Path:
        """The prompt by which endpoints are asked a `…_safe` question, below the workspace.

        Args:
            question: the question.
            clauses: whether each item comes with the clause of its class; by default as
                `annotators.policy` says.
        """
        given = self.annotators.policy == "clauses" if clauses is None else clauses
        return self.prompts / "annotate" / f"{question}{'_clauses' if given else ''}.yaml"

    def allowed(self, name: str) -> frozenset[str] | None:
        """The classes whose images an endpoint may be sent; None for all."""
        classes = frozenset(self.egress.get(name, ()))
        return None if "all" in classes else classes

    def asked(self, questions: Iterable[str] | None = None) -> list[str]:
        """The endpoints that are asked some questions, by default all."""
        named = [*ASKED, *_TASKS] if questions is None else questions
        return sorted({name for question in named for name in self.voters(question)})

    @property
    def encoder_votes(self) -> bool:
        """Whether the image-text encoder votes on images; else a build does without it."""
        return "encoder" in self.annotators.trained

    def voters(self, question: str) -> dict[str, EmbeddedEndpoint | RemoteEndpoint | ScriptedEndpoint]:
        """The endpoints that vote on a question, by name; those that write or make pictures too."""
        if question == "image_prompt":
            writer = self.generate.writer
            names = [writer] if writer is not None and self.generate.pictures else []
        elif question == "query":
            names = [self.synthesize.writer] if self.synthesize.writer is not None else []
        elif question == "response":
            names = [self.respond.writer] if self.respond.writer is not None else []
        elif question == "picture":
            names = [maker.endpoint for maker in self.generate.pictures if maker.kind == "images_api"]
        else:
            names = getattr(self.annotators, question)
        return {name: self.endpoints[name] for name in names}


def load_params(root: Path) -> Params:
    """Read `params.yaml` in `root` and check it, the taxonomy file's place and the sources' folders.

    Raises:
        InputError: naming the file, the field and the mend.
    """
    path = root / "params.yaml"
    params = validated(Params, load_yaml(path), path)
    for i, source in enumerate(params.collect.sources):
        place = f"{path}: collect.sources.{i}.path: {source.path}"
        if isinstance(source, WebDatasetSource):
            if not any(root.glob(source.path)):
                raise InputError(f"{place} fits no file; create one or remove the source")
        elif isinstance(source, UrlsSource):
            if not (root / source.path).is_file():
                raise InputError(f"{place} is no file; create or remove it")
        elif source.path is not None and not (root / source.path).is_dir():
            raise InputError(f"{place} is no folder; create or remove it")
    for i, listed in enumerate(params.collect.block_lists):
        if not (root / listed.path).is_file():
            raise InputError(f"{path}: collect.block_lists.{i}.path: {listed.path} is no file")
    return params
