"""The params model: everything a build can be told, in one explicit file, `params.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import InputError, load_yaml, validated

__all__ = [
    "Annotators",
    "Assemble",
    "BlockList",
    "Budget",
    "CheckpointEncoder",
    "ClassFoldersSource",
    "Curate",
    "DiffusionPictures",
    "EmbeddedEncoder",
    "EmbeddedEndpoint",
    "Encoder",
    "Endpoint",
    "Fetch",
    "FolderSource",
    "HubSource",
    "ImagesApiPictures",
    "Img2DatasetSource",
    "Intended",
    "MetadataField",
    "Params",
    "PerClass",
    "Pictures",
    "Prices",
    "RemoteEndpoint",
    "ScriptedEndpoint",
    "Source",
    "Thresholds",
    "UrlsSource",
    "WebDatasetSource",
    "load_params",
    "source_paths",
]

Share = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Intended(_Strict):
    """What images are collected for: a class of the taxonomy, and a side of its line."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    class_: str = Field(alias="class", min_length=1)
    safe: bool


MetadataField = Literal[
    "file_name",
    "url",
    "caption",
    "subject",
    "objects",
    "class",
    "safe",
    "license",
    "author",
    "page_url",
    "retrieved_at",
    "source_package",
]
"""What may be said of an image where it is listed."""


class _Source(_Strict):
    """What every kind of source can be told; what a row says itself comes first."""

    unknown_licence: Literal["refuse", "keep"] = "refuse"
    intended: Intended | None = Field(default=None, description="for rows without class and safe")
    license: str = ""
    author: str = ""
    page_url: str = Field(default="", pattern=r"^(https?://\S+)?$")


class _Mapped(_Source):
    columns: dict[MetadataField, str] = Field(
        default={}, description="our field: their column; others are found under our own names"
    )

    def named(self) -> dict[str, str]:
        """Their column by our field."""
        return dict(self.columns.items())


class FolderSource(_Source):
    """A local imagefolder with `metadata.jsonl`, `.csv` or `.parquet`."""

    kind: Literal["folder"]
    path: Path


class ClassFoldersSource(_Source):
    """A local folder with a folder of images for each class."""

    kind: Literal["class_folders"]
    path: Path
    folders: dict[str, Intended] = Field(min_length=1)


class UrlsSource(_Mapped):
    """A list of URLs: a CSV or Parquet file with a row for each image."""

    kind: Literal["urls"]
    path: Path


class HubSource(_Mapped):
    """A dataset of the Hugging Face Hub at one revision, or a local folder that `datasets` can load."""

    kind: Literal["hub"]
    dataset: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str | None = None
    path: Path | None = None
    config: str | None = None
    split: str = "train"
    image: str = "image"

    @model_validator(mode="after")
    def _one_place(self) -> HubSource:
        if (self.dataset is None) == (self.path is None):
            raise ValueError("name a dataset of the Hub with its revision, or a local path: one of the two")
        if self.dataset is not None and not self.revision:
            raise ValueError("revision: a dataset of the Hub changes; name the commit that is meant")
        return self


class WebDatasetSource(_Mapped):
    """Tar files whose members `key.jpg`, `key.json` and `key.txt` belong together."""

    kind: Literal["webdataset"]
    path: str = Field(
        pattern=r"^[^/]",
        description="a glob below the workspace, such as data/shards/*.tar; no absolute path",
    )


class Img2DatasetSource(_Mapped):
    """A folder that img2dataset wrote as webdataset: tar files, each with a Parquet file beside it."""

    kind: Literal["img2dataset"]
    path: Path


Source = Annotated[
    FolderSource | ClassFoldersSource | UrlsSource | HubSource | WebDatasetSource | Img2DatasetSource,
    Field(discriminator="kind"),
]


def source_paths(root: Path, source: Source) -> list[Path]:
    """The files and folders below the workspace that a source reads; URLs and the Hub have none."""
    if isinstance(source, WebDatasetSource):
        return sorted(path.relative_to(root) for path in root.glob(source.path))
    return [] if source.path is None else [source.path]


class Fetch(_Strict):
    """How URLs are fetched: as whom, how much at once, and when to give up."""

    user_agent: str = Field(min_length=1, pattern=r"^[\x20-\x7e]+$", description="name/version (+contact)")
    at_once: int = Field(ge=1, description="requests under way in all; each may hold collect.max_bytes")
    at_once_per_host: int = Field(ge=1)
    delay_s: float = Field(
        ge=0, description="from one request to a host to the next; robots.txt may ask more"
    )
    max_delay_s: float = Field(ge=0, description="a host whose robots.txt asks for more is left alone")
    total_s: float = Field(gt=0, description="the most that one URL may keep the network busy")
    redirects: int = Field(ge=0, le=20)
    retries: int = Field(ge=0, le=10, description="of what may pass: 429, 5xx, a connection that broke")
    pause_s: float = Field(ge=0, description="before the first retry; doubled for each after it")
    max_pause_s: float = Field(ge=0, description="the most that Retry-After is followed")
    allow_private: bool = Field(description="also addresses of private networks and of this machine")


class BlockList(_Strict):
    """Hashes of images that must not be kept, one in hexadecimal a line."""

    kind: Literal["sha256", "pdq"]
    path: Path
    bits: int = Field(default=31, ge=0, le=128, description="pdq: the most bits that a match may differ in")


class PerClass(_Strict):
    """The most images of one class to take for each side; labelling every image costs a call."""

    safe: int = Field(ge=0)
    unsafe: int = Field(ge=0)


class Collect(_Strict):
    """Where images come from."""

    sources: list[Source] = Field(min_length=1)
    per_class: PerClass
    max_bytes: int = Field(gt=0, description="a larger file is not read")
    block_lists: list[BlockList] = []
    fetch: Fetch


Side = Annotated[int, Field(ge=64, le=4096)]


class _Pictures(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = Field(
        description="decides, with the build's seed, which prompts it gets"
    )
    classes: list[str] = Field(default=[], description="empty: every class that the build covers")
    per_class: PerClass
    size: tuple[Side, Side] = Field(description="width and height in pixels")
    licence: str = Field(min_length=1, description="SPDX, of the pictures that it makes")
    redistributable: Literal["yes", "no", "unknown"]


class DiffusionPictures(_Pictures):
    """Pictures from a text-to-image checkpoint that diffusers can load."""

    kind: Literal["diffusion"]
    model: str = Field(min_length=1, description="a folder below the workspace, or a repository on the Hub")
    revision: str | None = Field(default=None, description="commit of the repository")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "cpu"
    offload: Literal["none", "model", "sequential"] = Field(
        default="none", description="what waits in main memory: nothing, whole models, single layers"
    )
    batch: int = Field(default=1, ge=1, description="pictures at a time")
    steps: int = Field(ge=1)
    guidance: float = Field(ge=0)
    negative_prompt: str = ""
    safety_checker: Literal["keep", "off"] = "keep"

    @model_validator(mode="after")
    def _loadable(self) -> DiffusionPictures:
        if any(side % 8 for side in self.size):
            raise ValueError("size: both sides must be multiples of 8")
        if self.offload != "none" and self.device == "cpu":
            raise ValueError(
                "offload: there is nothing to offload from the cpu; write none, or name a device"
            )
        return self


class ImagesApiPictures(_Pictures):
    """Pictures from an endpoint that serves `POST /images/generations`."""

    kind: Literal["images_api"]
    endpoint: str = Field(description="its name under `endpoints`, which says model, limits and price")


Pictures = Annotated[DiffusionPictures | ImagesApiPictures, Field(discriminator="kind")]


class Generate(_Strict):
    """Which images are made."""

    drawings: PerClass
    writer: str | None = Field(
        default=None, description="the endpoint that writes prompts for pictures; null: they are composed"
    )
    pictures: list[Pictures] = []

    @model_validator(mode="after")
    def _distinct(self) -> Generate:
        names = [maker.name for maker in self.pictures]
        if len(set(names)) < len(names):
            raise ValueError("pictures: two generators have one name")
        return self


class Curate(_Strict):
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
    signals: list[Literal["nudity", "text"]] = Field(
        description="what is looked for in every image; without `nudity` none is rejected for it"
    )


class Split(_Strict):
    """How groups are divided into train and test."""

    test_share: Share


class Prices(_Strict):
    """US dollars for a million tokens, and for one image that is made; 0 where nothing is charged."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    made_image: float = Field(default=0, ge=0)


class _Endpoint(_Strict):
    model: str = Field(min_length=1)
    family: str = Field(min_length=1, description="lineage of the weights: two sizes of one model are one")
    parameters: dict[str, Any] = Field(
        default={}, description="request parameters over those of the annotator; null takes one away"
    )
    sees: Literal["words", "pixels"] = Field(
        default="words", description="whether it is sent images, or captions and the text read from them"
    )


_DECIDES = {"model", "family", "parameters", "sees"}
"""The fields of every endpoint that decide what it answers."""


class EmbeddedEndpoint(_Endpoint):
    """A model of the registry, served on this machine by the build itself."""

    kind: Literal["embedded"]
    context_tokens: int = Field(ge=1024)
    threads: int = Field(ge=1)

    def identity(self) -> dict[str, Any]:
        """What decides its answers."""
        return self.model_dump(mode="json")


class _Served(_Endpoint):
    concurrency: int = Field(default=16, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    timeout_s: float = Field(default=120.0, gt=0)
    batch: bool = Field(default=False, description="ask through the Batch API; the price is then its price")


class RemoteEndpoint(_Served):
    """An OpenAI-compatible endpoint that somebody else runs."""

    kind: Literal["remote"]
    provider: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = Field(
        description="who answers; part of every call's key, so never a URL"
    )
    base_url: str = Field(pattern=r"^https?://")
    api_key_env: str | None = Field(description="the environment variable that holds the key; null for none")
    price: Prices
    image_tokens: int = Field(default=2000, ge=0, description="the most that one image counts for")
    max_image_bytes: int | None = Field(default=None, ge=1)

    def identity(self) -> dict[str, Any]:
        """What decides its answers: not where it is, how fast it is asked, or what it costs."""
        return self.model_dump(mode="json", include={"kind", "provider", *_DECIDES})


class ScriptedEndpoint(_Served):
    """An endpoint that answers from a file, started with `holisafe endpoint script`; for demos and tests."""

    kind: Literal["scripted"]
    script: Path
    base_url: str = Field(pattern=r"^http://(127\.0\.0\.1|localhost)[:/]")
    price: Prices = Prices(prompt=0, completion=0)

    def identity(self) -> dict[str, Any]:
        """What decides its answers; the script itself is hashed where it is read."""
        return self.model_dump(mode="json", include={"kind", "script", *_DECIDES})


Endpoint = Annotated[EmbeddedEndpoint | RemoteEndpoint | ScriptedEndpoint, Field(discriminator="kind")]


class Annotators(_Strict):
    """Which endpoints vote on each question, beside the encoders and heads that always do."""

    image_safe: list[str] = Field(min_length=1)
    text_safe: list[str] = Field(min_length=1)
    pair_safe: list[str] = Field(min_length=1)


class Budget(_Strict):
    """The most that model calls may cost, over all runs; null for no cap."""

    total: float | None = Field(default=None, ge=0, description="US dollars")
    stages: dict[Literal["generate", "label_images", "label_pairs"], float] = {}

    def caps(self) -> dict[str, float]:
        """The caps by name."""
        caps: dict[str, float] = dict(self.stages.items())
        return caps if self.total is None else {**caps, "total": self.total}


class _Encoder(_Strict):
    temperature: float = Field(gt=0, description="turns cosines into shares of P(unsafe)")
    offset: float = Field(ge=-1, le=1, description="taken from the cosine of every unsafe sentence")
    calibration: Path | None = Field(
        default=None, description="thresholds by class (scripts/calibrate_encoder.py); null for none"
    )


class EmbeddedEncoder(_Encoder):
    """EfficientNet-Lite2 and MiniLM, whose weights the registry names."""

    kind: Literal["embedded"]
    family: Literal["efficientnet-lite2"] = "efficientnet-lite2"

    def identity(self) -> dict[str, Any]:
        """What decides its votes, beside the files that it names."""
        return self.model_dump(mode="json")


class CheckpointEncoder(_Encoder):
    """Any open_clip architecture with weights from a local file."""

    kind: Literal["open_clip"]
    arch: str = Field(min_length=1, description="as open_clip lists it, or a model-config file (.json)")
    checkpoint: Path
    family: str = Field(min_length=1, description="lineage of the weights, as for endpoints")
    pretrained_tag: str | None = Field(
        default=None, description="open_clip's name for the weights: how images are prepared, which GELU"
    )
    tokenizer: Path | None = Field(
        default=None, description="folder of tokenizer files, where open_clip would fetch them"
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    batch: int = Field(default=16, ge=1, description="images that run through the network together")
    threads: int = Field(default=2, ge=1, description="batches at once, each decoded and run on one core")

    @property
    def config(self) -> Path | None:
        """The model-config file, where `arch` is one."""
        return Path(self.arch) if self.arch.endswith(".json") else None

    def identity(self) -> dict[str, Any]:
        """What decides its votes, beside the files that it names: not how many images run at once."""
        return self.model_dump(mode="json", exclude={"batch", "threads", "checkpoint"})


Encoder = Annotated[EmbeddedEncoder | CheckpointEncoder, Field(discriminator="kind")]
"""How images and sentences are embedded, and how their cosines become P(unsafe)."""


class Thresholds(_Strict):
    """P(unsafe) from which an item counts as unsafe, measured on gold labels (docs/quality.md)."""

    image_safe: Share
    text_safe: Share
    pair_safe: Share


class Synthesize(_Strict):
    """How many squares are drafted."""

    surplus: float = Field(ge=1, description="squares drafted for each square wanted")


class LabelPairs(_Strict):
    """How often short cells are topped up from the surplus."""

    rounds: int = Field(ge=1, le=10)


class Assemble(_Strict):
    """What goes into the dataset."""

    images: Literal["redistributable", "all"] = Field(
        description="which images come with their bytes; rows and URLs of the others stay"
    )


class Params(_Strict):
    """The whole file."""

    profile: Literal["embedded"]
    tier: Literal["demo"]
    seed: int = Field(ge=0)
    taxonomy: Path
    prompts: Path
    quota_scale: float = Field(gt=0)
    only_classes: list[str] = []
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
    assemble: Assemble

    @model_validator(mode="after")
    def _ordered(self) -> Params:
        for name in ("bits", "bits_fine"):
            if getattr(self.curate, f"leak_{name}") < getattr(self.curate, f"near_duplicate_{name}"):
                raise ValueError(f"curate.leak_{name} must be at least curate.near_duplicate_{name}")
        return self

    @model_validator(mode="after")
    def _known_voters(self) -> Params:
        used = set()
        for question in Annotators.model_fields:
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
    def _agreed_egress(self) -> Params:
        for name in self.egress:
            if name not in self.endpoints:
                raise ValueError(f"egress.{name}: there is no such endpoint")
        for question in ("image_safe", "pair_safe"):
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
            raise ValueError("generate: scripted endpoints and real ones cannot serve one build")
        if writer is None:
            return self
        for question in ("image_safe", "pair_safe"):
            for name, said in self.voters(question).items():
                if said.sees == "words" and said.family == self.endpoints[writer].family:
                    raise ValueError(
                        f"generate.writer: {writer!r} would write the captions by which {name!r}, of "
                        f"the same family, votes on {question}; name a writer of another family"
                    )
        return self

    def allowed(self, name: str) -> frozenset[str] | None:
        """The classes whose images an endpoint may be sent; None for all."""
        classes = frozenset(self.egress.get(name, ()))
        return None if "all" in classes else classes

    def asked(self, questions: Iterable[str] | None = None) -> list[str]:
        """The endpoints that are asked some questions, by default all."""
        named = [*Annotators.model_fields, "image_prompt", "picture"] if questions is None else questions
        return sorted({name for question in named for name in self.voters(question)})

    def voters(self, question: str) -> dict[str, EmbeddedEndpoint | RemoteEndpoint | ScriptedEndpoint]:
        """The endpoints that vote on a question, by name; those that write prompts or make pictures too."""
        if question == "image_prompt":
            writer = self.generate.writer
            names = [writer] if writer is not None and self.generate.pictures else []
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
