"""The annotators of a build, opened together: encoders, heads, and the endpoints that params name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.annotators.base import Annotator, ImageItem, PairItem, Question, TextItem, Vote
from pipeline.annotators.classes import image_classes, text_classes
from pipeline.annotators.clauses import clauses
from pipeline.annotators.harm import HarmReader, HarmSeer, load_harm_prompt
from pipeline.annotators.heads import (
    DIM,
    PAIR_HEAD,
    TEXT_HEAD,
    PairHead,
    TextHead,
    load_head,
    load_pair_network,
)
from pipeline.annotators.llm import (
    CaptionReader,
    ImageVLM,
    LanguageModel,
    PairLLM,
    PairVLM,
    Questioner,
    TextLLM,
    Voter,
)
from pipeline.annotators.pixels import EncoderAnnotator, NudityAnnotator
from pipeline.annotators.prompt import load_prompt
from pipeline.annotators.safety_head import SafetyHeadAnnotator, load_safety_head
from pipeline.extras import needs
from pipeline.stages import STAGES
from schemas.errors import InputError
from schemas.params import HARM_PROMPT, VOTED, Trained

if TYPE_CHECKING:
    from pipeline.encoders import FeatureStore, TextEncoder
    from pipeline.engine import Endpoint, LlamaServer, RemoteEndpoint, Terms
    from pipeline.workspace import Progress, Workspace

__all__ = [
    "Panel",
    "ask_together",
    "check_endpoints",
    "check_prompts",
    "open_endpoint",
    "open_panel",
    "open_voters",
    "vote_all",
]


@dataclass
class Panel:
    """Everybody who votes; each is loaded when it is first asked for."""

    workspace: Workspace
    voters: Mapping[str, Voter]
    stage: str
    features: FeatureStore | None = None

    @cached_property
    def text(self) -> Sequence[Annotator[TextItem]]:
        """Who judges texts: the head, and the endpoints that params name."""
        if "text_head" not in self._trained:
            return self.text_models
        head = TextHead(self._texts, load_head(TEXT_HEAD, DIM), self.workspace.params.thresholds.text_safe)
        return [head, *self.text_models]

    @cached_property
    def text_models(self) -> Sequence[TextLLM]:
        """Those of them that ask a model."""
        told = self._told("text_safe")
        return [TextLLM(voter, **told) for voter in self._asked("text_safe")]

    @cached_property
    def text_class(self) -> Annotator[TextItem]:
        """Who names the class of a text."""
        return text_classes(self._texts, self.workspace.taxonomy)

    @cached_property
    def pair(self) -> Sequence[Annotator[PairItem]]:
        """Who judges pairs: the head, and the endpoints that params name."""
        if "pair_head" not in self._trained:
            return self.pair_models
        network = load_pair_network(PAIR_HEAD)
        head = PairHead(self._texts, network, self.workspace.params.thresholds.pair_safe)
        return [head, *self.pair_models]

    @cached_property
    def pair_models(self) -> Sequence[PairLLM | PairVLM]:
        """Those of them that ask a model: about the image in words, or about its pixels."""
        told = self._told("pair_safe")
        return [
            (PairLLM if voter.blobs is None else PairVLM)(voter, **told) for voter in self._asked("pair_safe")
        ]

    @cached_property
    def image(self) -> Sequence[Annotator[ImageItem]]:
        """Who judges images: by pixels on safety and class, by nudity, and the endpoints that params name."""
        found: list[Annotator[ImageItem]] = []
        if "encoder" in self._trained:
            found.append(self._encoder())
        if "nearest_class" in self._trained:
            found.append(image_classes(self._texts, self.workspace.taxonomy))
        if "nudity" in self._trained:
            from pipeline.encoders import load_nudity_classifier

            found.append(NudityAnnotator(load_nudity_classifier()))
        if self.workspace.params.annotators.safety_head is not None:
            found.append(self._safety_head(self.workspace.params.annotators.safety_head))
        return [*found, *self.image_models]

    def _encoder(self) -> EncoderAnnotator:
        from pipeline.encoders import EncoderAt, load_encoder
        from pipeline.encoders.calibrate import load_calibration

        params, taxonomy, root = self.workspace.params, self.workspace.taxonomy, self.workspace.root
        said, network = params.encoder, load_encoder(params.encoder, root)
        calibration = None
        if said.calibration is not None:
            path = root / said.calibration
            judged = [info.name for info in taxonomy.classes() if info.spec.encoder_prompts.unsafe]
            calibration = load_calibration(path, network.identity, said.temperature, said.offset, judged)
        return EncoderAnnotator(
            network,
            taxonomy,
            family=said.family,
            temperature=said.temperature,
            offset=said.offset,
            threshold=params.thresholds.image_safe,
            kept=self.features,
            calibration=calibration,
            at=EncoderAt(said, root, network.identity),
        )

    def _safety_head(self, path: Path) -> SafetyHeadAnnotator:
        from pipeline.encoders import load_image_encoder

        head = load_safety_head(self.workspace.root / path)
        return SafetyHeadAnnotator(load_image_encoder(), head, self.workspace.params.thresholds.image_safe)

    @cached_property
    def image_models(self) -> Sequence[CaptionReader | ImageVLM]:
        """Those of them that ask a model: about the caption, or about the pixels."""
        told = self._told("image_safe")
        return [
            (CaptionReader if voter.blobs is None else ImageVLM)(voter, **told)
            for voter in self._asked("image_safe")
        ]

    @cached_property
    def harm(self) -> Sequence[HarmReader]:
        """Who says whom a pair harms, and how: by the image in words, or by its pixels."""
        if not self.workspace.params.annotators.harm:
            return []
        prompt = load_harm_prompt(self.workspace.root / self.workspace.params.prompts / HARM_PROMPT)
        return [
            (HarmReader if voter.blobs is None else HarmSeer)(voter, prompt, stage=self.stage)
            for voter in self._asked("harm")
        ]

    def models(self, question: str) -> Sequence[LanguageModel[Any]]:
        """Those who ask a model for votes on a question, about which the panel's stage asks."""
        if question == "image_safe":
            return self.image_models
        if question == "text_safe":
            return self.text_models
        if question == "pair_safe":
            return self.pair_models
        raise ValueError(f"{question}: no model votes on it")

    @property
    def _trained(self) -> list[Trained]:
        return self.workspace.params.annotators.trained

    @cached_property
    def _texts(self) -> TextEncoder:
        from pipeline.encoders import load_text_encoder

        return load_text_encoder()

    def _asked(self, question: str) -> list[Voter]:
        return [self.voters[name] for name in self.workspace.params.voters(question)]

    def _told(self, question: Question) -> dict[str, Any]:
        """What every model that votes on a question is bound to."""
        params = self.workspace.params
        # What anybody brings to be labelled is filed under no class.
        filed = self.stage in STAGES and params.annotators.policy == "clauses"
        path = params.annotation_prompt(question, clauses=filed)
        return {
            "prompt": load_prompt(self.workspace.root / path),
            "stage": self.stage,
            "clauses": clauses(self.workspace.taxonomy, question) if filed else None,
        }


@contextmanager
def open_panel(
    workspace: Workspace, stage: str, *, sends: bool = True, keep: Callable[[bytes], str] | None = None
) -> Iterator[Panel]:
    """Open the call cache and the endpoints; a model server starts with the first call that is not cached.

    Args:
        workspace: whose params, prompts and call cache are used.
        stage: who asks, recorded with each call.
        sends: whether calls may be sent. Where they are only written out, no keys and no weights are needed.
        keep: keeps a picture that an endpoint makes and gives its SHA-256; needed where some are made.

    Raises:
        InputError: when an endpoint's key or script is missing.
    """
    from pipeline.encoders import FeatureStore
    from pipeline.engine import PlannedEndpoint

    params = workspace.params
    # Who has queries written asks again itself, with what else is wrong.
    reasks = {"reasks": 0} if stage == "synthesize" else {}
    with ExitStack() as running:
        endpoints = {
            name: open_endpoint(workspace, name) if sends else PlannedEndpoint(*_terms(workspace, name))
            for name in params.asked(STAGES[stage].questions if stage in STAGES else VOTED)
        }
        voters = running.enter_context(_voters(workspace, endpoints, keep=keep, **reasks))
        features = None
        if sends and stage == "label_images":
            features = running.enter_context(FeatureStore(workspace.features))
        yield Panel(workspace, voters, stage, features)


@contextmanager
def open_voters(workspace: Workspace, names: Sequence[str]) -> Iterator[dict[str, Voter]]:
    """Open the call cache and some endpoints that params name, whatever params ask them.

    Raises:
        InputError: when there is no such endpoint, or its key or script is missing.
        ModelMissingError: when its weights are.
    """
    known = workspace.params.endpoints
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"{workspace.root / 'params.yaml'}: endpoints: there is no {unknown[0]}; "
            f"known: {', '.join(known)}"
        )
    with _voters(workspace, {name: open_endpoint(workspace, name) for name in names}) as voters:
        yield voters


@contextmanager
def _voters(
    workspace: Workspace,
    endpoints: Mapping[str, Endpoint],
    *,
    keep: Callable[[bytes], str] | None = None,
    **reasks: int,
) -> Iterator[dict[str, Voter]]:
    from pipeline.engine import BlobStore, Budget, Engine, open_cache

    params = workspace.params
    with open_cache(workspace.calls) as cache, ExitStack() as running:
        budget = Budget.of(cache, params.budget.caps())
        blobs = BlobStore(workspace.blobs)
        voters = {}
        for name, endpoint in endpoints.items():
            said = params.endpoints[name]
            running.callback(endpoint.close)
            voters[name] = Voter(
                name,
                Engine(cache, endpoint, budget=budget, blobs=blobs, keep=keep, **reasks),
                endpoint.backend_id,
                said.model,
                said.family,
                endpoint.terms,
                said.parameters,
                local=said.kind == "embedded",
                blobs=blobs if said.sees == "pixels" else None,
                egress=params.allowed(name),
            )
        yield voters


def open_endpoint(workspace: Workspace, name: str) -> LlamaServer | RemoteEndpoint:
    """The endpoint that params name; nothing is started or sent.

    Raises:
        InputError: when its key, its script or its server's package is missing.
        ModelMissingError: when its weights are.
    """
    from pipeline.engine import LlamaServer, RemoteEndpoint
    from pipeline.models import locate, model_sha256

    said = workspace.params.endpoints[name]
    if said.kind == "embedded":
        needs("xllamacpp")  # which its own process would find out
        return LlamaServer(
            locate(said.model),
            model_sha256(said.model),
            log=workspace.state / "llama.log",
            threads=said.threads,
            ctx_size=said.context_tokens,
        )
    backend_id, terms = _terms(workspace, name)
    if said.kind == "scripted":
        from pipeline.engine.scripted import ScriptedEndpoint, load_script

        return ScriptedEndpoint.of(load_script(workspace.root / said.script), said.base_url, terms)
    key = os.environ.get(said.api_key_env, "").strip() if said.api_key_env else "none"
    if not (key and key.isascii() and key.isprintable()):
        raise InputError(
            f"{workspace.root / 'params.yaml'}: endpoints.{name}.api_key_env: the environment variable "
            f"{said.api_key_env} is not set, or holds no key; set it to the endpoint's key"
        )
    return RemoteEndpoint(backend_id, said.base_url, key, terms)


def _terms(workspace: Workspace, name: str) -> tuple[str, Terms]:
    """Who answers at an endpoint, and what it takes and costs.

    Raises:
        InputError: when its script is missing.
    """
    from pipeline.engine import LlamaServer, Terms
    from pipeline.models import model_sha256

    said = workspace.params.endpoints[name]
    if said.kind == "embedded":
        return f"sha256:{model_sha256(said.model)}", LlamaServer.terms
    terms = Terms(
        concurrency=said.concurrency,
        requests_per_minute=said.requests_per_minute,
        tokens_per_minute=said.tokens_per_minute,
        timeout_s=said.timeout_s,
        prompt_price=said.price.prompt,
        completion_price=said.price.completion,
        made_image_price=said.price.made_image,
        batch=said.batch,
    )
    if said.kind == "scripted":
        from pipeline.engine.scripted.script import backend_id, load_script

        return backend_id(load_script(workspace.root / said.script)), terms
    return said.provider, replace(terms, image_tokens=said.image_tokens, max_image_bytes=said.max_image_bytes)


def check_endpoints(workspace: Workspace) -> None:
    """See that every endpoint that params use could be asked, as far as can be told without asking.

    Raises:
        InputError: when a key or a script is missing.
        ModelMissingError: when weights are.
    """
    for name in workspace.params.asked():
        open_endpoint(workspace, name)


def check_prompts(workspace: Workspace) -> None:
    """See that the prompts which params name can be used.

    Raises:
        InputError: naming the file and the path of every wrong field.
    """
    params, root = workspace.params, workspace.root
    for question in VOTED:
        load_prompt(root / params.annotation_prompt(question))
    if params.annotators.harm:
        load_harm_prompt(root / params.prompts / HARM_PROMPT)


def vote_all(annotators: Sequence[Annotator[Any]], items: Sequence[Any], progress: Progress) -> list[Vote]:
    """Every annotator's votes on every item, annotator by annotator in their order.

    What is computed here goes one after the other; endpoints elsewhere are asked at the same time.
    """
    elsewhere = [a for a in annotators if isinstance(a, LanguageModel) and not a.voter.local]
    found: dict[int, list[Vote]] = {}
    for annotator in annotators:
        if annotator not in elsewhere:
            progress.start(f"{annotator.question}, {annotator.name}", len(items))
            found[id(annotator)] = annotator.annotate(items, progress)
    if elsewhere:
        progress.start(f"{elsewhere[0].question}, {len(elsewhere)} endpoints", len(items) * len(elsewhere))
        together = ask_together(elsewhere, lambda annotator: annotator.annotate(items, progress))
        found |= {id(a): votes for a, votes in zip(elsewhere, together, strict=True)}
    return [vote for annotator in annotators for vote in found[id(annotator)]]


Asker = TypeVar("Asker", bound=Questioner[Any])
Said = TypeVar("Said")


def ask_together(askers: Sequence[Asker], ask: Callable[[Asker], Said]) -> list[Said]:
    """What `ask` gives for each, in their order; all are asked at the same time, and stop together."""
    found: dict[int, Said] = {}
    with ThreadPoolExecutor(max(1, len(askers))) as pool:
        running = {pool.submit(ask, asker): i for i, asker in enumerate(askers)}
        try:
            for future in as_completed(running):
                found[running[future]] = future.result()
        except BaseException:
            # An interrupt reaches this thread alone; and where one has failed, the others need not go on.
            for asker in askers:
                asker.voter.engine.stop()
            raise
    return [found[i] for i in range(len(askers))]
