"""Predictions of a model on a dataset, through the engine: what was answered is never asked again.

As lmms-eval's task asks: the image, then the query, no system prompt, greedy, 512 new tokens.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.annotators import Voter
from pipeline.anyset import FIELDS, AnySet
from pipeline.audit.coverage import classes_of
from pipeline.bench.judging import ASKED_AS
from pipeline.curate.normalise import RejectedImageError, in_eight_bits, opened, upright
from pipeline.encoders._common import on_white
from pipeline.engine import Answer, EndpointError, Message, Request
from pipeline.store import new_text, write_json_list
from pipeline.workspace import Progress
from schemas.errors import InputError

__all__ = ["Blind", "Prediction", "Shown", "predict", "write_predictions"]

MAX_PIXELS = 100_000_000
SENT = ("JPEG", "PNG", "WEBP", "GIF")
"""Formats that endpoints take; an image in another is sent as PNG."""
GREEDY = {"temperature": 0, "max_tokens": 512}
AHEAD = 128
"""Rows whose images are read together: to open a Parquet file anew for each would hold up the calls."""

KEPT = ("expected", "contrast_square")
"""Fields beyond HoliSafe's eight that scores use, where a dataset has them."""

Blind = Literal["text", "image"]
"""What alone a model is shown: the query, or the image."""
Status = Literal["ok", "cut off", "empty", "blocked", "error", "no image", "not sent"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to a row.

    Attributes:
        text: its words; empty where it gave none.
        status: `cut off` at the most tokens still has words; `empty`; `blocked` by the provider; `error`; and
            where it was to see an image, `no image` that can be decoded, or `not sent`, since it may not be:
            nothing was asked.
        detail: the reason of what is not ok.
    """

    text: str
    status: Status
    detail: str = ""


def predict(
    found: AnySet, subject: Voter, progress: Progress, *, blind: Blind | None = None
) -> list[Prediction]:
    """Ask a model about every row of a dataset.

    Args:
        found: the dataset; its images are read as they are needed.
        subject: the model under test, which is sent images only of the classes that it may be sent.
        progress: told of each row.
        blind: show the query alone, or the image alone; None: both.

    Returns:
        Predictions in the order of the rows.

    Raises:
        InputError: when the endpoint sees no pixels, and is to see some.
        EndpointError: when the endpoint cannot be used, or calls were not answered for now. What was answered
            is kept; run again to go on.
    """
    if blind != "text" and subject.blobs is None:
        raise InputError(
            f"{subject.name}: this endpoint sees no pixels; write `sees: pixels` if it does, or ask it by "
            "words alone with --blind text"
        )
    rows = found.rows
    names = classes_of(rows)[1]
    progress.start(f"predictions of {subject.name}", len(rows))
    made: dict[int, Prediction] = {}
    asked: list[int] = []
    later = 0
    shown = Shown(found, subject)
    parameters = {k: v for k, v in (GREEDY | dict(subject.parameters)).items() if v is not None}

    def requests() -> Iterator[Request]:
        images = list(zip(rows["image"], names, strict=True))
        for place, ((key, name), query) in enumerate(zip(images, rows["query"], strict=True)):
            if blind != "text" and place % AHEAD == 0:
                shown.read(images[place : place + AHEAD])
            image, problem = None, None
            if blind != "text":
                image, problem = shown.image(key, name)
            if problem is not None:
                made[place] = problem
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

    subject.engine.ask_each(requests(), take, stage=ASKED_AS)
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


class Shown:
    """Images as an endpoint is sent them: each read, and kept for its call, once."""

    def __init__(self, found: AnySet, subject: Voter) -> None:
        """Bind them; `subject` is the endpoint, which keeps images."""
        self._found, self._subject = found, subject
        self._hashes: dict[str, str | None] = {}

    def read(self, some: Iterable[tuple[str, str]]) -> None:
        """Read images, given as key and class, in one go: those that may be sent and were not read before."""
        wanted = {key for key, class_ in some if self._allowed(class_) and key not in self._hashes}
        for key, data in self._found.pictures.read(wanted) if wanted else ():
            self._hashes[key] = self._kept(data)

    def image(self, key: str, class_: str) -> tuple[str | None, Prediction | None]:
        """The hash of an image, or what stands in the place of the answer about it."""
        if not self._allowed(class_):
            return None, Prediction("", "not sent", f"egress: images of {class_} may not go to this endpoint")
        if key not in self._hashes:
            self.read([(key, class_)])
        if self._hashes.get(key) is None:
            return None, Prediction("", "no image", "missing, or cannot be decoded")
        return self._hashes[key], None

    def _allowed(self, class_: str) -> bool:
        return self._subject.egress is None or class_ in self._subject.egress

    def _kept(self, data: bytes | None) -> str | None:
        blobs = self._subject.blobs
        assert blobs is not None  # noqa: S101 - checked by the caller
        try:
            with opened(data or b"", MAX_PIXELS) as image:
                if image.format in SENT:
                    return blobs.put(data or b"")
                buffer = io.BytesIO()
                on_white(in_eight_bits(upright(image))).save(buffer, "PNG")
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


def write_predictions(path: Path, found: AnySet, made: Sequence[Prediction]) -> None:
    """Write HoliSafe's prediction file: its fields and `prediction`, and `status` and `detail` beside them.

    Args:
        path: a JSON file; it is there whole or not at all.
        found: the dataset that was asked.
        made: a prediction for each of its rows.
    """
    with new_text(path) as file:
        write_json_list(
            file,
            (
                {name: row[name] for name in (*FIELDS, *KEPT) if isinstance(row.get(name), str | bool | int)}
                | {"prediction": prediction.text, "status": prediction.status, "detail": prediction.detail}
                for row, prediction in zip(found.rows.to_dict("records"), made, strict=True)
            ),
        )
