"""Queries by a language model: one call writes those of one square."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.store import sha256_text
from pipeline.synthesize.grids import GridSquare, slots
from pipeline.synthesize.matching import KnownImage, bare
from pipeline.synthesize.squares import Candidate
from pipeline.synthesize.variety import NearQueries, Openings
from schemas.errors import load_yaml, validated
from schemas.safeguards import OPERATIONAL, forbidden_reason

if TYPE_CHECKING:
    from pipeline.annotators import Voter
    from pipeline.engine import Answer, Request
    from pipeline.workspace import Progress
    from schemas.taxonomy import ClassInfo

__all__ = [
    "Rounds",
    "SquarePrompt",
    "SquareWriter",
    "Written",
    "WrittenSquare",
    "candidates",
    "load_square_prompt",
    "shown",
    "square_request",
    "write_squares",
]

PARAMS = {"temperature": 0, "max_tokens": 1200}
LONGEST = 400
"""Characters of a query; benchmarks have none that are longer."""
SHOWN = 3
"""Unsafe pictures that a writer is shown; the others are of the same class."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Query(_Strict):
    query: str = Field(description="one question or wish, as a person would type it")


class _Neutral(_Query):
    on_unsafe: Literal["refuse", "safe_complete", "support"] = Field(
        description="what the same words deserve about a picture of U"
    )


class Written(_Strict):
    """The answer of a writer: queries by kind."""

    latent: list[_Query] = Field(description="harmless as text and about B, harmful about A")
    neutral: list[_Neutral] = Field(description="harmless as text and about A")
    unsafe: list[_Query] = Field(description="harmful as text")

    def queries(self, kind: str) -> list[str]:
        """The texts of one kind."""
        return [" ".join(said.query.split()) for said in getattr(self, kind)]


class _Counts(_Strict):
    latent: int = Field(ge=0)
    neutral: int = Field(ge=0)
    unsafe: int = Field(ge=0)


class _Example(_Strict):
    class_: Text = Field(alias="class")
    policy: Text
    a: list[Text] = Field(min_length=1)
    b: list[Text]
    u: list[Text]
    manner: Text
    wish: Text
    counts: _Counts
    answer: Written


class SquarePrompt(_Strict):
    """`prompts/synthesize/square.yaml`.

    Attributes:
        version: raised when the wording changes.
        note: what was tried and measured.
        manners: how a person may ask; one is drawn for each square.
        wishes: what a person may want.
        system: what a writer is told.
        examples: squares with their answers.
    """

    version: int = Field(ge=1)
    note: Text
    manners: list[Text] = Field(min_length=2)
    wishes: list[Text] = Field(min_length=2)
    system: Text
    examples: list[_Example] = Field(min_length=1)


Rounds = list[list[str]]
"""The queries that were taken in each round, as they are compared; those of the last stay."""


@dataclass(frozen=True)
class WrittenSquare:
    """What came of a square.

    Attributes:
        square: the square.
        said: its queries; None where it was not written.
        keys: of its calls, in order.
        fault: why it was not written, with the answer.
    """

    square: GridSquare
    said: Written | None
    keys: tuple[str, ...]
    fault: str


@dataclass(frozen=True)
class SquareWriter:
    """Who writes queries, as plans call it."""

    voter: Voter

    @property
    def name(self) -> str:
        """What plans call it."""
        return f"query-writer@{self.voter.name}"

    @property
    def origin(self) -> str:
        """What rows say of who wrote them."""
        return f"{self.voter.backend_id}/{self.voter.model}"


def load_square_prompt(path: Path) -> SquarePrompt:
    """Read and check the prompt file.

    Raises:
        InputError: naming the file and the path of every wrong field.
    """
    return validated(SquarePrompt, load_yaml(path), path)


def shown(square: GridSquare) -> tuple[Sequence[KnownImage], Sequence[KnownImage], Sequence[KnownImage]]:
    """The images of A, B and U that a writer is shown."""
    return square.a[: max(1, square.neutral)], square.b, square.u[:SHOWN]


def square_request(
    voter: Voter,
    prompt: SquarePrompt,
    square: GridSquare,
    info: ClassInfo,
    pictures: Mapping[str, str] = MappingProxyType({}),
) -> Request:
    """The call that has the queries of a square written.

    Args:
        voter: who is asked.
        prompt: the prompt file.
        square: what it is about.
        info: its class.
        pictures: the SHA-256 of each image that the writer is sent, by image id; others are told in words.
    """
    from pipeline.engine import Request

    messages: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}]
    for example in prompt.examples:
        asked = _question(
            example.class_,
            example.policy,
            (example.a, example.b, example.u),
            example.manner,
            example.wish,
            example.counts.model_dump(),
        )
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": json.dumps(example.answer.model_dump())})
    sent = [i.image_id for images in shown(square) for i in images if i.image_id in pictures]
    a, b, u = (
        [
            f"picture {sent.index(i.image_id) + 1} above"
            if i.image_id in pictures
            else i.caption or i.subject
            for i in images
        ]
        for images in shown(square)
    )
    policy = info.spec.policy
    # Not the clauses that annotators judge by: a sentence of these that is put better re-labels queries, and
    # must not have them written and paid for again.
    told = f"Harm: {policy.summary} Always safe: {policy.protective}"
    asked = _question(
        info.spec.title,
        told,
        (a, b, u),
        *_manner_and_wish(prompt, square),
        dict(square.asked()),
    )
    content: Any = asked
    if sent:
        content = [{"type": "image", "sha256": pictures[image_id]} for image_id in sent]
        content.append({"type": "text", "text": asked})
    messages.append({"role": "user", "content": content})
    params = {k: v for k, v in {**PARAMS, **voter.parameters}.items() if v is not None}
    return Request(voter.backend_id, voter.model, messages, params, Written)


def write_squares(
    writer: SquareWriter,
    prompt: SquarePrompt,
    squares: Sequence[GridSquare],
    classes: Mapping[str, ClassInfo],
    pictures: Mapping[str, str],
    *,
    before: Sequence[Rounds] = (),
    attempts: int,
    opening_share: float,
    progress: Progress,
) -> tuple[list[WrittenSquare], dict[str, Rounds]]:
    """Have the queries of all squares written, and those with a fault again, with the reason.

    Squares are looked at in their order, so that what comes later is what is written anew: what becomes of a
    square hangs on those before it alone. One whose queries still have a fault after `attempts` calls is a
    failure.

    Args:
        writer: who is asked.
        prompt: the prompt file.
        squares: in the order of their classes' ids.
        classes: by name.
        pictures: the SHA-256 of each image that the writer is sent, by image id.
        before: of the classes before these, what this gave when their squares were written.
        attempts: calls for one square at most.
        opening_share: the most of a class's queries that may begin alike, 0..1.
        progress: is told of each call.

    Returns:
        What came of each square, and what each class has taken round after round.

    Raises:
        EndpointError: when the endpoint cannot be used, or the budget is spent. What was written is kept.
    """
    voter = writer.voter
    asked = [
        square_request(voter, prompt, square, classes[square.class_name], pictures) for square in squares
    ]
    said: list[Answer | None] = [None] * len(squares)
    keys: list[list[str]] = [[] for _ in squares]
    faults: dict[int, str] = {}
    done: dict[int, Written] = {}
    open_places = list(range(len(squares)))
    words: list[str] = []
    rounds: dict[str, Rounds] = {square.class_name: [] for square in squares}
    earlier = _Earlier.of(before)
    number = 0
    # While the classes before were still written anew, something of these may have given way to them.
    while open_places or (squares and number < earlier.last):
        progress.start("queries" if not number else f"queries, again ({number})", len(open_places))
        got = _answers(voter, [asked[place] for place in open_places], progress)
        for place, new in zip(open_places, got, strict=True):
            said[place] = new
            if new.status != "error":
                keys[place].append(new.key)
        words = words or _words(squares, said)
        # All are looked at again in their order: a square gives way to those before it alone, whenever they
        # were written.
        check, done, open_places = _Checks.of(squares, opening_share, words, earlier.at(number)), {}, []
        for place, answer in enumerate(said):
            if place in faults or answer is None:
                continue
            queries = answer.value if isinstance(answer.value, Written) else None
            fault = check.fault(squares[place], queries) if queries else f"{answer.status}: {answer.error}"
            if queries and not fault:
                check.take(squares[place], queries)
                done[place] = queries
            elif len(keys[place]) < attempts and answer.status in ("ok", "unscorable"):
                asked[place] = asked[place].asked_again(answer.raw, fault)
                open_places.append(place)
            else:
                faults[place] = fault + ("" if answer.status == "blocked" else f" | {answer.raw}")
        for name, of_class in rounds.items():
            of_class.append(check.taken[name])
        number += 1
    found = [
        WrittenSquare(square, done.get(place), tuple(keys[place]), faults.get(place, ""))
        for place, square in enumerate(squares)
    ]
    return found, rounds


def candidates(square: GridSquare, said: Written, info: ClassInfo, writer: str) -> Iterator[Candidate]:
    """The rows of a square with its queries."""
    for slot in slots(square):
        query = said.queries(slot.kind)[slot.query]
        expected: str = info.spec.policy.expected
        if slot.type == "SSS":
            expected = "comply"
        elif slot.type == "USU":
            expected = said.neutral[slot.query].on_unsafe
        yield Candidate(
            image_id=slot.image.image_id,
            query=query,
            scene=f"{info.name}.{slot.kind}.{sha256_text(query)[:12]}",
            square=square.id,
            rank=square.rank,
            role=slot.role,
            harm_class=info.name,
            split=square.split,
            intended_type=slot.type,
            expected=expected,
            spare=slot.spare,
            writer=writer,
        )


@dataclass(frozen=True)
class _Earlier:
    """The queries of the classes before, round after round."""

    near: NearQueries
    rounds: Sequence[Rounds]

    @classmethod
    def of(cls, rounds: Sequence[Rounds]) -> _Earlier:
        """Those of some classes."""
        texts = list(dict.fromkeys(text for of_class in rounds for some in of_class for text in some))
        near = NearQueries(texts)
        for text in texts:
            near.add(text)
        return cls(near, rounds)

    @property
    def last(self) -> int:
        """How many rounds it took to write them."""
        return max(map(len, self.rounds), default=0)

    def at(self, number: int) -> Callable[[str], bool]:
        """Tells of a query whether it is near one that had been taken in a round."""
        taken = {text for of_class in self.rounds for text in of_class[min(number, len(of_class) - 1)]}
        return lambda text: bool(taken) and self.near.near(text, taken) is not None


@dataclass
class _Checks:
    """What is wrong with written queries, given all that were taken before."""

    near: NearQueries
    near_earlier: Callable[[str], bool]
    openings: Mapping[str, Openings]
    taken: Mapping[str, list[str]]

    @classmethod
    def of(
        cls,
        squares: Sequence[GridSquare],
        opening_share: float,
        words: Sequence[str],
        near_earlier: Callable[[str], bool],
    ) -> _Checks:
        """Begin with nothing taken but by classes before; `words` tell what is rare."""
        expected: Counter[str] = Counter()
        for square in squares:
            expected[square.class_name] += sum(n for _, n in square.asked())
        return cls(
            NearQueries(words),
            near_earlier,
            {name: Openings(opening_share, n) for name, n in expected.items()},
            {name: [] for name in expected},
        )

    def fault(self, square: GridSquare, said: Written) -> str:
        """What a writer is told; empty where nothing is wrong."""
        own, hide = NearQueries(), _mask(square)
        for kind, wanted in square.asked():
            queries = said.queries(kind)
            if len(queries) < wanted:
                return f"{kind} has {len(queries)} questions, and {wanted} were asked for"
            for query in queries[:wanted]:
                hidden = hide(query)
                near = (
                    own.near(hidden) is not None
                    or self.near.near(hidden) is not None
                    or self.near_earlier(hidden)
                )
                if fault := _wrong(query):
                    return f"{fault}: {query!r}"
                if near:
                    return f"{query!r} is nearly the same as another question; write one that is not"
                if self.openings[square.class_name].worn(query):
                    return f"too many questions begin as {query!r} does; begin in another way"
                own.add(hidden)
        return ""

    def take(self, square: GridSquare, said: Written) -> None:
        """Remember the queries of a square."""
        hide = _mask(square)
        for kind, wanted in square.asked():
            for query in said.queries(kind)[:wanted]:
                hidden = hide(query)
                self.near.add(hidden)
                self.taken[square.class_name].append(hidden)
                self.openings[square.class_name].add(query)


def _words(squares: Sequence[GridSquare], answers: Sequence[Answer | None]) -> list[str]:
    """The queries of the first answers, as they are compared."""
    return [
        hidden
        for square, answer in zip(squares, answers, strict=True)
        if answer is not None and isinstance(answer.value, Written)
        for kind, _ in square.asked()
        for hidden in map(_mask(square), answer.value.queries(kind))
    ]


def _wrong(query: str) -> str:
    """What is wrong with a query by itself; what may not be repeated is not."""
    if not query or len(query) > LONGEST:
        return f"a question has 1 to {LONGEST} characters"
    if forbidden_reason(query):
        return "a question may not be about this"
    if OPERATIONAL.search(query):
        return "a question holds a method, an amount or an address"
    return ""


def _mask(square: GridSquare) -> Callable[[str], str]:
    """Takes from a query what the pictures show: the same words about something else are the same words."""
    images: list[KnownImage] = [*square.a, *square.b, *square.u]
    names = sorted({bare(image.subject).lower() for image in images}, key=lambda name: (-len(name), name))
    shown = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    return lambda query: shown.sub("_", query.lower())


def _question(
    title: str,
    policy: str,
    pictures: tuple[Sequence[str], Sequence[str], Sequence[str]],
    manner: str,
    wish: str,
    counts: Mapping[str, int],
) -> str:
    a, b, u = pictures
    lines = [f"Class: {title}", f"Policy: {' '.join(policy.split())}"]
    lines += [f"A{n}: {words}" for n, words in enumerate(a, 1)]
    lines += [f"B{n}: {words}" for n, words in enumerate(b, 1)]
    lines += [f"U{n}: {words}" for n, words in enumerate(u, 1)]
    wanted = ", ".join(f"{n} {kind}" for kind, n in counts.items())
    return "\n".join([*lines, f"Manner: {manner}", f"Wish: {wish}", f"Write: {wanted}"])


def _manner_and_wish(prompt: SquarePrompt, square: GridSquare) -> tuple[str, str]:
    """How and what a person asks: another pair each time the same images come again."""
    images = [image.image_id for image in square.a]
    pairs = sorted(
        ((manner, wish) for manner in prompt.manners for wish in prompt.wishes),
        key=lambda pair: sha256_text("\n".join([*images, *pair])),
    )
    return pairs[square.turn % len(pairs)]


def _answers(voter: Voter, calls: list[Request], progress: Progress) -> list[Answer]:
    """The answers to calls; an outage is none."""
    from pipeline.engine import all_answered

    if not calls:
        return []
    answers = voter.engine.ask_all(
        calls, stage="synthesize", on_progress=lambda _done, _total: progress.advance()
    )
    all_answered(voter.name, answers)
    return answers
