"""The nine stages: what each reads, which params it uses, and where its code is.

`dvc.yaml` mirrors this table; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pipeline.workspace import Progress, Workspace
from schemas.params import Params
from schemas.reviews import REVIEWS

__all__ = ["STAGES", "Stage", "modules_of"]

IMAGE_ENCODER = "efficientnet-lite2"
RunStage = Callable[[Workspace, Path, Progress], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        name: the same in dvc.yaml, pipeline/, flows/, on the command line and in metrics.
        inputs: stages whose tables it reads.
        params: the parts of params.yaml it uses.
        files: other files and folders it depends on; names in braces stand in params.
        models: weights it always uses, by their names in the models registry.
        questions: what it asks endpoints: those that params name under `annotators`, `generate` or `respond`.
        heads: trained heads that ship with the code, as files below `pipeline/`.
        version: raised when the code gives other results for the same inputs.
    """

    name: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    files: tuple[str, ...]
    models: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    version: int = 1

    def weights(self, params: Params) -> list[str]:
        """The registered weights that it uses, with those of the embedded encoder and endpoints it asks."""
        asked = [said for q in self.questions for said in params.voters(q).values()]
        embedded = self.encodes(params) and params.encoder.kind == "embedded"
        embedded |= "annotators.safety_head" in self.params and params.annotators.safety_head is not None
        encoder = [IMAGE_ENCODER, _TEXT] if embedded else []
        return sorted({*self.models, *encoder, *(said.model for said in asked if said.kind == "embedded")})

    def encodes(self, params: Params) -> bool:
        """Whether it looks at images with the encoder that params name."""
        if "encoder" not in self.params:
            return False
        return params.curate.leak_cosine is not None if self.name == "curate" else params.encoder_votes

    def run(self, workspace: Workspace, out: Path, progress: Progress) -> None:
        """Do the stage's work, leaving its tables in the folder `out`."""
        code: RunStage = import_module(f"pipeline.{self.name}").run
        code(workspace, out, progress)


_TAXONOMY = "{taxonomy}"
_QUERIES = "{prompts}/queries"
_PEOPLE = str(REVIEWS)  # there once somebody has voted
_TEXT = "all-minilm-l6-v2"

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "collect",
            (),
            ("collect", "seed", "only_classes"),
            (_TAXONOMY, "{sources}", "{block_lists}"),
            version=3,
        ),
        Stage(
            "generate",
            (),
            ("generate", "collect.block_lists", "seed", "only_classes"),
            (_TAXONOMY, "{block_lists}", "{prompts}/generate", "{checkpoints}"),
            questions=("image_prompt", "picture"),
            version=3,
        ),
        Stage(
            "curate",
            ("collect", "generate"),
            ("curate", "split", "seed", "encoder"),
            (),
            ("centerface", "open-nsfw"),
            version=5,
        ),
        Stage(
            "label_images",
            ("curate",),
            (
                "encoder",
                "annotators.policy",
                "annotators.trained",
                "annotators.safety_head",
                "thresholds.image_safe",
                "only_classes",
                "egress",
            ),
            (_TAXONOMY, "{image_safe}", "{safety_head}", _PEOPLE),
            (_TEXT, "open-nsfw"),
            ("image_safe",),
            ("encoders/head.npz",),
            version=4,
        ),
        Stage(
            "synthesize",
            ("curate", "label_images"),
            ("synthesize", "quotas", "quota_scale", "split", "seed", "only_classes", "egress"),
            (_TAXONOMY, _QUERIES, "{prompts}/synthesize"),
            questions=("query",),
            version=6,
        ),
        Stage(
            "label_pairs",
            ("curate", "label_images", "synthesize"),
            (
                "thresholds.text_safe",
                "thresholds.pair_safe",
                "label_pairs",
                "only_classes",
                "egress",
                "annotators.policy",
                "annotators.trained",
            ),
            (_TAXONOMY, "{text_safe}", "{pair_safe}", "{harm}", _PEOPLE),
            (_TEXT,),
            ("text_safe", "pair_safe", "harm"),
            ("annotators/text_head.npz", "annotators/pair_head.npz"),
            version=6,
        ),
        Stage(
            "respond",
            ("curate", "label_images", "label_pairs"),
            ("seed", "respond", "egress"),
            (_TAXONOMY, _QUERIES, "{prompts}/responses.yaml", "{prompts}/respond"),
            questions=("response",),
            version=2,
        ),
        Stage(
            "assemble",
            ("curate", "label_images", "label_pairs", "respond"),
            ("tier", "quotas", "quota_scale", "split", "only_classes", "assemble"),
            (_TAXONOMY,),
            version=5,
        ),
        Stage(
            "audit",
            (
                "collect",
                "generate",
                "curate",
                "label_images",
                "synthesize",
                "label_pairs",
                "respond",
                "assemble",
            ),
            (
                "quotas",
                "quota_scale",
                "split",
                "only_classes",
                "curate",
                "thresholds",
                "encoder",
                "annotators.trained",
            ),
            (_TAXONOMY, _PEOPLE),
            version=6,
        ),
    )
}
"""The nine stages by name, in the order of the graph."""


def modules_of(params: Params) -> list[str]:
    """What a build with these params imports that is not of the core."""
    asked = [said for s in STAGES.values() for q in s.questions for said in params.voters(q).values()]
    found = {"datasets", "faker"}
    if asked:
        found |= {"aiohttp", "openai"}
    if any(said.kind == "embedded" for said in asked):
        found.add("xllamacpp")
    if params.annotators.trained or params.annotators.safety_head:
        found |= {"open_clip", "torch", "transformers"}
    if "faces" in params.curate.signals:
        found.add("onnx")
    if params.execution.runner != "threads":
        found.add("ray" if params.execution.runner == "ray" else "distributed")
    return sorted(found)
