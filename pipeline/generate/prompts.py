"""Which pictures are wanted, and the prompt of each: written by a model, or composed without one.

Each prompt is asked for one (concept, setting, style) of its class and side that no other has. The order in
which these are taken hangs on the build's seed and the generator's name: concepts take turns, and a new
concept, setting or style moves no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.generate.policy import ImagePrompt, refusal
from pipeline.store import canonical_json, sha256_text
from schemas.errors import load_yaml, validated

if TYPE_CHECKING:
    from pipeline.annotators import Voter
    from pipeline.engine import Request
    from pipeline.store import Failures
    from schemas.params import Pictures
    from schemas.taxonomy import ClassInfo

__all__ = [
    "ImagePromptFile",
    "Picture",
    "Triple",
    "Wanted",
    "WrittenPrompt",
    "admitted",
    "load_image_prompt",
    "triples",
    "wanted_pictures",
    "writer_request",
]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Template = Annotated[str, StringConstraints(pattern=r"^[^{}]*(\{(style|thing|setting)\}[^{}]*)+$")]

PARAMS = {"temperature": 0, "max_tokens": 400}
_SMALL = frozenset(
    {"a", "an", "and", "as", "at", "by", "in", "of", "on", "one", "or", "that", "the", "to", "with"}
)
LONGEST = 600
"""Characters of a prompt or caption; what is longer is no sentence."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _said(text: str) -> str:
    if not 0 < len(text.strip()) <= LONGEST:
        raise ValueError(f"must have 1 to {LONGEST} characters")
    return " ".join(text.split())


def _listed(objects: list[str]) -> list[str]:
    if not 1 <= len(objects) <= 12:
        raise ValueError("must name 1 to 12 objects")
    return objects


# Checked in code and not in the schema: endpoints know different parts of JSON schema.
Said = Annotated[str, AfterValidator(_said)]


_NEGATION = re.compile(r"\b(?:no|not|nobody|none|never|nothing|without)\b", re.IGNORECASE)


def _only_what_is_seen(prompt: str) -> str:
    if found := _NEGATION.search(prompt):
        raise ValueError(f"say only what is seen; {found[0]!r} names what is not, and it would be drawn")
    return prompt


class WrittenPrompt(_Strict):
    """The answer of a writer."""

    prompt: Annotated[Said, AfterValidator(_only_what_is_seen)] = Field(
        description="one sentence for the image model"
    )
    caption: Said = Field(description="what is seen, without judging it")
    subject: Said = Field(description="the main thing, with its article")
    objects: Annotated[list[Said], AfterValidator(_listed)] = Field(description="plain nouns")


class _Composed(_Strict):
    prompt: Template
    caption: Template


class _Example(_Strict):
    title: Text
    side: Literal["safe", "unsafe"]
    rule: Text
    ceiling: Text
    concept: Text
    setting: Text
    style: Text
    answer: WrittenPrompt

    def shown(self) -> str:
        """The question in the words in which real ones are put."""
        return _question(
            self.title, self.side, self.rule, self.ceiling, Triple(self.concept, self.setting, self.style)
        )


class ImagePromptFile(_Strict):
    """`prompts/generate/image_prompt.yaml`.

    Attributes:
        version: raised when the wording changes.
        note: what was tried and measured.
        settings: where things are shown.
        styles: how they are shown, each with its article.
        without_article: concepts that take none.
        composed: templates for prompts that no model writes; `{thing}` is a concept with its article.
        system: what a writer is told.
        examples: questions with their answers.
    """

    version: int = Field(ge=1)
    note: Text
    settings: list[Text] = Field(min_length=1)
    styles: list[Text] = Field(min_length=1)
    without_article: list[Text]
    composed: _Composed
    system: Text
    examples: list[_Example] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> ImagePromptFile:
        for name in ("settings", "styles"):
            values = getattr(self, name)
            if len({value.lower() for value in values}) < len(values):
                raise ValueError(f"{name}: one stands twice; each must be another")
        return self

    def thing(self, concept: str) -> str:
        """A concept with its article."""
        if concept in self.without_article:
            return concept
        return f"{'an' if re.match(r'[aeiouAEIOU]|X-', concept) else 'a'} {concept}"

    def compose(self, triple: Triple) -> WrittenPrompt:
        """The prompt of a triple, without a model."""
        thing = self.thing(triple.concept)
        parts = {"style": triple.style, "thing": thing, "setting": triple.setting}
        # Not held against what a writer is: a concept may be a sign that says what is not allowed.
        return WrittenPrompt.model_construct(
            prompt=self.composed.prompt.format(**parts),
            caption=self.composed.caption.format(**parts),
            subject=thing,
            objects=[triple.concept],
        )


@dataclass(frozen=True, slots=True)
class Triple:
    """What one prompt is about."""

    concept: str
    setting: str
    style: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture that is wanted.

    Attributes:
        id: of generator, class, side and triple.
        maker: the generator's place in params.
        info: the class that it is for.
        safe: the side that it aims at.
        triple: what its prompt is about.
    """

    id: str
    maker: int
    info: ClassInfo
    safe: bool
    triple: Triple


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is to be made.

    Attributes:
        wanted: what it is for.
        said: its prompt, and what will be seen.
        origin: how the prompt came about, for the recipe.
        call_key: of the writer's call; empty where none was made.
    """

    wanted: Wanted
    said: WrittenPrompt
    origin: dict[str, Any]
    call_key: str

    @property
    def prompt(self) -> ImagePrompt:
        """The prompt as the policy looks at it."""
        return ImagePrompt(self.said.prompt, self.wanted.info, self.wanted.safe)


def load_image_prompt(path: Path) -> ImagePromptFile:
    """Read and check the prompt file.

    Raises:
        InputError: naming the file and the path of every wrong field.
    """
    return validated(ImagePromptFile, load_yaml(path), path)


def triples(concepts: Sequence[str], file: ImagePromptFile, salt: str) -> list[Triple]:
    """Every (concept, setting, style), each once, in the order in which they are taken.

    Args:
        concepts: of one class and side.
        file: which has settings and styles.
        salt: decides the order.
    """
    ranked: list[tuple[int, str, Triple]] = []
    for concept in dict.fromkeys(concepts):
        mine = sorted(
            (sha256_text(canonical_json([salt, concept, setting, style])), Triple(concept, setting, style))
            for setting in file.settings
            for style in file.styles
        )
        ranked += [(rank, order, triple) for rank, (order, triple) in enumerate(mine)]
    # Concepts take turns.
    return [triple for _, _, triple in sorted(ranked, key=lambda entry: entry[:2])]


def wanted_pictures(
    makers: Sequence[Pictures],
    classes: Sequence[ClassInfo],
    file: ImagePromptFile,
    seed: int,
    failures: Failures | None = None,
) -> list[Wanted]:
    """The pictures that params ask for, by generator and class; no two of a class share a triple.

    Args:
        makers: the generators of params.
        classes: those that the build covers.
        file: the prompt file.
        seed: of the build.
        failures: told where there are fewer triples than pictures.
    """
    found: list[Wanted] = []
    taken: set[tuple[str, bool, Triple]] = set()
    for place, maker in enumerate(makers):
        for info in classes:
            if maker.classes and info.name not in maker.classes:
                continue
            for safe, most in ((True, maker.per_class.safe), (False, maker.per_class.unsafe)):
                concepts = info.spec.concepts.safe if safe else info.spec.concepts.unsafe
                salt = canonical_json([seed, maker.name, info.name, safe])
                ordered = triples(concepts, file, salt) if most else []
                free = [t for t in ordered if (info.name, safe, t) not in taken][:most]
                taken |= {(info.name, safe, triple) for triple in free}
                for triple in free:
                    parts = [salt, triple.concept, triple.setting, triple.style]
                    found.append(Wanted(sha256_text(canonical_json(parts))[:16], place, info, safe, triple))
                if failures is not None and len(free) < most:
                    failures.add(
                        "",
                        f"picture:{maker.name}",
                        "no distinct prompt left",
                        f"{info.name}, {'safe' if safe else 'unsafe'}: {len(free)} of {most}",
                    )
    return found


def writer_request(voter: Voter, file: ImagePromptFile, wanted: Wanted) -> Request:
    """The call that has a prompt written."""
    from pipeline.engine import Request

    params = {k: v for k, v in {**PARAMS, **voter.parameters}.items() if v is not None}
    return Request(voter.backend_id, voter.model, _messages(file, wanted), params, WrittenPrompt)


def admitted(pictures: Iterable[Picture], failures: Failures, source: Sequence[str]) -> list[Picture]:
    """The pictures whose prompts may be sent: within the policy, and not nearly the same as another's.

    Args:
        pictures: with their prompts.
        failures: gets a row for each of the others; a refused prompt is not repeated there.
        source: the name of each generator, by its place.
    """
    kept: list[Picture] = []
    seen: set[tuple[str, bool, frozenset[str]]] = set()
    for picture in pictures:
        wanted, said = picture.wanted, picture.said
        whole = ". ".join([said.prompt, said.caption, said.subject, *said.objects])
        name = f"picture:{source[wanted.maker]}"
        if reason := refusal(ImagePrompt(whole, wanted.info, wanted.safe)):
            failures.add(wanted.id, name, "prompt refused", reason)
            continue
        key = wanted.info.name, wanted.safe, _words(said.prompt)
        if key in seen:
            failures.add(wanted.id, name, "prompt nearly the same as another", said.prompt)
            continue
        seen.add(key)
        kept.append(picture)
    return kept


def _words(prompt: str) -> frozenset[str]:
    """The words that make a prompt another: neither small words nor their order nor plurals do."""
    words = set(re.findall(r"\w+", prompt.lower())) - _SMALL
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words)


def _messages(file: ImagePromptFile, wanted: Wanted) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": file.system}]
    for example in file.examples:
        messages.append({"role": "user", "content": example.shown()})
        messages.append({"role": "assistant", "content": json.dumps(example.answer.model_dump())})
    spec = wanted.info.spec
    rule = spec.policy.image.safe if wanted.safe else spec.policy.image.unsafe
    side = "safe" if wanted.safe else "unsafe"
    question = _question(spec.title, side, rule, spec.generation.ceiling, wanted.triple)
    return [*messages, {"role": "user", "content": question}]


def _question(title: str, side: str, rule: str, ceiling: str, triple: Triple) -> str:
    return (
        f"Class: {title}\nSide: {side}\nRule: {rule}\nCeiling: {ceiling}\n"
        f"Concept: {triple.concept}\nSetting: {triple.setting}\nStyle: {triple.style}"
    )
