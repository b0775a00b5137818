"""Predictions of a model on a dataset, through the engine: what was answered is never asked again.

As lmms-eval's task asks: the image, then the query, no system prompt, greedy, 512 new tokens.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from PIL import Image

from pipeline.anyset import AnySet
from pipeline.curate.normalise import RejectedImageError, in_eight_bits, opened, upright
from pipeline.encoders._common import on_white
from pipeline.engine import Answer, EndpointError, Message, Request
from pipeline.workspace import Progress

__all__ = ["Blind", "Prediction", "Subject", "predict"]

STAGE = "bench"
MAX_PIXELS = 100_000_000
SENT = ("JPEG", "PNG", "WEBP", "GIF")
"""Formats that endpoints take; an image in another is sent as PNG."""
GREEDY = {"temperature": 0, "max_tokens": 512}

Blind = Literal["text", "image"]
"""What alone a model is shown: the query, or the image."""
Status = Literal["ok", "cut off", "empty", "blocked", "error", "no image"]


class _Asks(Protocol):
    def ask_each(
        self, requests: Iterator[Request], on_answer: Callable[[int, Answer], None], *, stage: str
    ) -> None: ...


class _Keeps(Protocol):
    def put(self, data: bytes) -> str: ...


@dataclass(frozen=True)
class Subject:
    """The model under test.

    Attributes:
        name: what results call it.
        engine: asks and remembers.
        backend_id: who answers, as the engine's endpoint calls itself.
        model: the model's name there.
        blobs: keeps the images that it is sent.
        parameters: request parameters over greedy ones; None takes one away.
    """

    name: str
    engine: _Asks
    backend_id: str
    model: str
    blobs: _Keeps
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to a row.

    Attributes:
        text: its words; empty where it gave none.
        status: `cut off` at the most tokens still has words; `empty`; `blocked` by the provider; `error`; and
            `no image` where it was to see one that is missing or cannot be decoded: nothing was asked.
        detail: the reason of what is not ok.
    """

    text: str
    status: Status
    detail: str = ""


def predict(
    found: AnySet, subject: Subject, progress: Progress, *, blind: Blind | None = None
) -> list[Prediction]:
    """Ask a model about every row of a dataset.

    Args:
        found: the dataset; its images are read as they are needed.
        subject: the model.
        progress: told of each row.
        blind: show the query alone, or the image alone; None: both.

    Returns:
        Predictions in the order of the rows.

    Raises:
        EndpointError: when the endpoint cannot be used, or calls were not answered for now. What was answered
            is kept; run again to go on.
    """
    rows = found.rows
    progress.start(f"predictions of {subject.name}", len(rows))
    made: dict[int, Prediction] = {}
    asked: list[int] = []
    later = 0
    images: dict[str, str | None] = {}
    parameters = {k: v for k, v in (GREEDY | dict(subject.parameters)).items() if v is not None}

    def requests() -> Iterator[Request]:
        for place, (key, query) in enumerate(zip(rows["image"], rows["query"], strict=True)):
            if blind != "text" and key not in images:
                data = dict(found.pictures.read([key])).get(key)
                images[key] = _kept(data, subject.blobs)
            image = None if blind == "text" else images[key]
            if blind != "text" and image is None:
                made[place] = Prediction("", "no image", "missing, or cannot be decoded")
                progress.advance()
                continue
            asked.append(place)
            yield Request(
                subject.backend_id,
                subject.model,
                [_message(image, None if blind == "image" else query)],
                parameters,
            )

    def take(index: int, answer: Answer) -> None:
        nonlocal later
        later += answer.again
        made[asked[index]] = _prediction(answer)
        progress.advance()

    subject.engine.ask_each(requests(), take, stage=STAGE)
    if later:
        raise EndpointError(
            f"{subject.name}: {later} of {len(rows)} calls were not answered. The others are kept: run the "
            "same command again to ask only these"
        )
    return [made[place] for place in range(len(rows))]


def _message(image: str | None, query: str | None) -> Message:
    if image is None:
        return {"role": "user", "content": query}
    parts: list[dict[str, str]] = [{"type": "image", "sha256": image}]
    if query is not None:
        parts.append({"type": "text", "text": query})
    return {"role": "user", "content": parts}


def _kept(data: bytes | None, blobs: _Keeps) -> str | None:
    """The hash of an image that may be sent; None where it cannot be decoded."""
    try:
        with opened(data or b"", MAX_PIXELS) as image:
            if image.format in SENT:
                return blobs.put(data or b"")
            buffer = io.BytesIO()
            picture: Image.Image = on_white(in_eight_bits(upright(image)))
            picture.save(buffer, "PNG")
            return blobs.put(buffer.getvalue())
    except RejectedImageError:
        return None


def _prediction(answer: Answer) -> Prediction:
    refused = answer.status == "blocked" and answer.error.endswith(" refusal")
    if answer.status == "ok" or refused:  # what a model says in the field of refusals is its answer, too
        return Prediction(answer.raw, "ok")
    if answer.status == "unscorable":
        return Prediction(answer.raw, "cut off" if answer.raw.strip() else "empty", answer.error)
    return Prediction("", "blocked" if answer.status == "blocked" else "error", answer.error)
