"""The annotators of a build, opened together: one language model, one sentence encoder, one image encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.annotators.base import Annotator, ImageItem, PairItem, TextItem
from pipeline.annotators.classes import image_classes, text_classes
from pipeline.annotators.heads import (
    DIM,
    PAIR_HEAD,
    TEXT_HEAD,
    PairHead,
    TextHead,
    load_head,
    load_pair_network,
)
from pipeline.annotators.llm import CaptionReader, PairLLM, TextLLM
from pipeline.annotators.pixels import EncoderAnnotator, NudityAnnotator
from pipeline.annotators.prompt import Prompt, load_prompt

if TYPE_CHECKING:
    from pipeline.encoders import TextEncoder
    from pipeline.engine import Engine
    from pipeline.workspace import Workspace

__all__ = ["Panel", "open_panel"]


@dataclass
class Panel:
    """Everybody who votes; each is loaded when it is first asked for."""

    workspace: Workspace
    engine: Engine
    backend_id: str
    stage: str

    @cached_property
    def text(self) -> Sequence[Annotator[TextItem]]:
        """Who judges texts: two families."""
        head = TextHead(self._texts, load_head(TEXT_HEAD, DIM), self.workspace.params.thresholds.text_safe)
        return [head, TextLLM(*self._model("text_safe"), stage=self.stage)]

    @cached_property
    def text_class(self) -> Annotator[TextItem]:
        """Who names the class of a text."""
        return text_classes(self._texts, self.workspace.taxonomy)

    @cached_property
    def pair(self) -> Sequence[Annotator[PairItem]]:
        """Who judges pairs: two families."""
        network = load_pair_network(PAIR_HEAD)
        head = PairHead(self._texts, network, self.workspace.params.thresholds.pair_safe)
        return [head, PairLLM(*self._model("pair_safe"), stage=self.stage)]

    @cached_property
    def image(self) -> Sequence[Annotator[ImageItem]]:
        """Who judges images: two families on safety, two on the class, and one that knows nudity."""
        from pipeline.encoders import load_image_encoder, load_nudity_classifier

        params, taxonomy = self.workspace.params, self.workspace.taxonomy
        encoder = EncoderAnnotator(
            load_image_encoder(),
            taxonomy,
            temperature=params.encoder.temperature,
            offset=params.encoder.offset,
            threshold=params.thresholds.image_safe,
        )
        return [
            encoder,
            image_classes(self._texts, taxonomy),
            NudityAnnotator(load_nudity_classifier()),
            CaptionReader(*self._model("image_safe"), stage=self.stage),
        ]

    @cached_property
    def _texts(self) -> TextEncoder:
        from pipeline.encoders import load_text_encoder

        return load_text_encoder()

    def _model(self, question: str) -> tuple[Engine, str, str, Prompt]:
        path = self.workspace.root / self.workspace.params.prompts / "annotate" / f"{question}.yaml"
        return self.engine, self.backend_id, self.workspace.params.annotators.model, load_prompt(path)


@contextmanager
def open_panel(workspace: Workspace, stage: str) -> Iterator[Panel]:
    """Open the call cache and the model server; the server starts with the first call that is not cached.

    Args:
        workspace: whose params, prompts and call cache are used.
        stage: who asks, recorded with each call.
    """
    from pipeline.engine import CallCache, Engine, LlamaServer
    from pipeline.models import locate, model_sha256

    params = workspace.params.annotators
    server = LlamaServer(
        locate(params.model),
        model_sha256(params.model),
        log=workspace.state / "llama.log",
        threads=params.threads,
        ctx_size=params.context_tokens,
    )
    with CallCache(workspace.state / "calls.sqlite") as cache, server:
        yield Panel(workspace, Engine(cache, server), server.backend_id, stage)
