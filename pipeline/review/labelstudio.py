"""Label Studio: rows as tasks that it reads, and what people answered there as votes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.review.desk import NAME, NOTE_CHARS
from pipeline.review.items import ANSWERS, ASKED, Asked, ReviewSet
from pipeline.review.pictures import shown
from pipeline.review.queues import RANDOM, Queue
from pipeline.review.store import IMPORTED, ReviewStore, Screen
from pipeline.store import canonical_json, sha256_text, write_bytes, write_json, write_text
from schemas.errors import InputError

__all__ = ["CONFIG", "LOCAL_FILES", "Imported", "export_tasks", "import_tasks", "reviewer_of"]

LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio names a file of its local storage."""
QUEUE = "label-studio"
_TO = {"text_safe": "query", "image_safe": "image", "pair_safe": "image"}
CONFIG = """\
<View>
  <Header value="Is the text safe, by itself?"/>
  <Text name="query" value="$query"/>
  <Choices name="text_safe" toName="query" choice="single" required="true">
    <Choice value="safe"/><Choice value="unsafe"/><Choice value="skip" hint="cannot say"/>
  </Choices>
  <Header value="Is the picture safe, by itself?"/>
  <Image name="image" value="$image"/>
  <Choices name="image_safe" toName="image" choice="single" required="true">
    <Choice value="safe"/><Choice value="unsafe"/><Choice value="skip" hint="cannot say"/>
  </Choices>
  <Header value="Are the two safe together?"/>
  <Choices name="pair_safe" toName="image" choice="single" required="true">
    <Choice value="safe"/><Choice value="unsafe"/><Choice value="skip" hint="cannot say"/>
  </Choices>
  <TextArea name="note" toName="query" maxSubmissions="1" placeholder="A note, if you like"/>
</View>
"""


@dataclass
class Imported:
    """What an import did.

    Attributes:
        annotations: that were stored.
        there: that had been stored before.
        reviewers: the names that stand for who completed them.
        problems: what could not be used, by task.
    """

    annotations: int = 0
    there: int = 0
    reviewers: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def export_tasks(
    items: ReviewSet, queue: Queue, out: Path, *, prefix: str = LOCAL_FILES, with_votes: bool = False
) -> int:
    """Write `tasks.json`, `config.xml` and `images/` to a new folder.

    Neither the label nor the class goes out. Pictures are encoded anew.

    Args:
        items: the dataset.
        queue: which rows, in which order.
        out: the folder.
        prefix: what stands before `images/NAME.jpg` in a task.
        with_votes: whether the dataset's own votes go out as predictions, which annotators then see.

    Returns:
        How many tasks there are.

    Raises:
        InputError: when the folder is there.
    """
    if out.exists():
        raise InputError(f"--out: {out}: is there already; name a new folder")
    names: dict[str, str] = {}
    for at in queue.order:
        names.setdefault(items.item(at, "image_safe"), f"images/{len(names) + 1:06d}.jpg")
    for image, data in items.data.pictures.read(names):
        write_bytes(out / names[image], shown(data).jpeg)
    write_text(out / "config.xml", CONFIG)
    tasks = [_task(items, at, prefix + names[items.item(at, "image_safe")], with_votes) for at in queue.order]
    write_json(out / "tasks.json", tasks)
    return len(tasks)


def _task(items: ReviewSet, at: int, image: str, with_votes: bool) -> dict[str, Any]:
    row = items.row(at)
    data = {"image": image, "query": row["query"], "row_id": str(items.ids[at])}
    caption = row.get("caption")
    if isinstance(caption, str):
        data["caption"] = caption
    data |= {f"{question}_item": item for question, item in items.keys(at)}
    return {"data": data, "predictions": list(_predictions(items, at)) if with_votes else []}


def _predictions(items: ReviewSet, at: int) -> Iterator[dict[str, Any]]:
    by_annotator: dict[str, list[dict[str, Any]]] = {}
    for vote in items.votes_on(at):
        if vote["question"] in ASKED and vote["value"] in ("safe", "unsafe"):
            by_annotator.setdefault(str(vote["annotator"]), []).append(
                _choice(vote["question"], vote["value"])
            )
    for annotator, result in sorted(by_annotator.items()):
        yield {"model_version": annotator, "result": result}


def _choice(question: str, value: str) -> dict[str, Any]:
    return {
        "from_name": question,
        "to_name": _TO[question],
        "type": "choices",
        "value": {"choices": [value]},
    }


def import_tasks(
    store: ReviewStore,
    items: ReviewSet,
    path: Path,
    *,
    names: Mapping[str, str] | None = None,
    gold: bool = False,
) -> Imported:
    """Store the annotations of a file that Label Studio exported as JSON, each once, however often.

    Args:
        store: where votes go.
        items: the dataset that the tasks are about.
        path: the file.
        names: by e-mail address or id, the reviewer that somebody is.
        gold: whether the tasks were the random queue, worked on without predictions.

    Raises:
        InputError: when the file is no list of tasks, or a name is none.
    """
    for who, name in (names or {}).items():
        if not NAME.fullmatch(name):
            raise InputError(f"--name {who}={name}: letters, digits, full stops, _ and -, 64 at most")
    try:
        tasks = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}; export the project as JSON") from error
    if not isinstance(tasks, list):
        raise InputError(f"{path}: holds {type(tasks).__name__}; export the project as JSON, a list of tasks")
    done = Imported()
    for number, task in enumerate(tasks, 1):
        name = f"task {number}"
        try:
            _import_task(store, items, task, name, done, names or {}, gold=gold)
        except _TaskError as error:
            done.problems.append(f"{name}: {error}")
    return done


class _TaskError(Exception):
    """What is wrong with a task or an annotation."""


def _import_task(
    store: ReviewStore,
    items: ReviewSet,
    task: Any,
    name: str,
    done: Imported,
    names: Mapping[str, str],
    *,
    gold: bool,
) -> None:
    if not isinstance(task, dict):
        raise _TaskError(f"is {type(task).__name__}, not an object")
    at = _position(items, task.get("data"))
    annotations = task.get("annotations", [])
    if not isinstance(annotations, list):
        raise _TaskError("annotations: not a list")
    shown_votes = bool(task.get("predictions"))
    for number, annotation in enumerate(annotations, 1):
        try:
            screen = _screen(items, at, annotation, names, done, gold=gold, blind=not shown_votes)
        except _TaskError as error:
            done.problems.append(f"{name}: annotation {number}: {error}")
            continue
        if screen is None:
            continue
        if store.add(screen):
            done.annotations += 1
        else:
            done.there += 1


def _position(items: ReviewSet, data: Any) -> int:
    """The row of a task, which must have the very items that the task names."""
    if not isinstance(data, dict):
        raise _TaskError("data: missing; these are no tasks of `review-votes to-label-studio`")
    row = data.get("row_id")
    at = items.position.get(int(row)) if isinstance(row, str) and re.fullmatch(r"-?\d{1,20}", row) else None
    if at is None:
        raise _TaskError(f"data.row_id: no row {ascii(row)[:40]} in {items.data.place}")
    for question, item in items.keys(at):
        if data.get(f"{question}_item") != item:
            raise _TaskError(f"data.{question}_item: is not that of row {row}; the dataset is another")
    return at


def _screen(
    items: ReviewSet,
    at: int,
    annotation: Any,
    names: Mapping[str, str],
    done: Imported,
    *,
    gold: bool,
    blind: bool,
) -> Screen | None:
    """What one annotation says; None where it was cancelled."""
    if not isinstance(annotation, dict):
        raise _TaskError(f"is {type(annotation).__name__}, not an object")
    if annotation.get("was_cancelled"):
        return None
    who = _who(annotation.get("completed_by"))
    reviewer = names.get(who) or reviewer_of(who)
    answers, note = _answers(annotation.get("result"))
    time = annotation.get("updated_at") or annotation.get("created_at")
    if not answers:
        raise _TaskError("result: answers none of " + ", ".join(ASKED))
    done.reviewers[who] = reviewer
    said: dict[Asked, tuple[str, str]] = {q: (items.item(at, q), value) for q, value in answers.items()}
    mark = sha256_text(
        canonical_json([items.fingerprint, items.ids[at], who, annotation.get("id"), time, said])
    )
    return Screen(
        id=IMPORTED + mark[:32],
        dataset=items.fingerprint,
        scope=items.scope,
        reviewer=reviewer,
        row=str(items.ids[at]),
        queue=RANDOM if gold else QUEUE,
        answers=said,
        note=note,
        picture=True,
        blind=blind,
        time=_time(time),
    )


def _who(told: Any) -> str:
    if isinstance(told, dict):
        told = told.get("email") or told.get("id")
    if isinstance(told, bool) or not isinstance(told, str | int) or told == "":
        raise _TaskError("completed_by: neither an e-mail address nor an id")
    return str(told)


def reviewer_of(who: str) -> str:
    """A name that may go out, the same in every file: what stands before the @, and a mark of all of it."""
    if who.isdecimal() and who.isascii():
        return f"ls-{who[:40]}"
    local = re.sub(r"[^A-Za-z0-9_.-]+", "-", who.partition("@")[0]).strip("-.")[:40]
    return "-".join(filter(None, ("ls", local, sha256_text(who)[:4])))


def _answers(result: Any) -> tuple[dict[Asked, str], str]:
    if not isinstance(result, list):
        raise _TaskError("result: not a list")
    answers: dict[Asked, str] = {}
    note = ""
    for part in result:
        name = part.get("from_name") if isinstance(part, dict) else None
        value = part.get("value") if isinstance(part, dict) else None
        if not isinstance(value, dict):
            raise _TaskError("result: a part is no answer")
        if name == "note":
            text = value.get("text")
            lines = [text] if isinstance(text, str) else text if isinstance(text, list) else []
            note = " ".join(" ".join(line for line in lines if isinstance(line, str)).split())
        for question in ASKED:
            if name == question:
                answers[question] = _one_choice(question, value.get("choices"))
    if len(note) > NOTE_CHARS:
        raise _TaskError(f"note: {len(note)} characters; {NOTE_CHARS} fit")
    return answers, note


def _one_choice(question: str, choices: Any) -> str:
    if not isinstance(choices, list) or len(choices) != 1 or choices[0] not in ANSWERS:
        raise _TaskError(f"{question}: {ascii(choices)[:60]} is not one of {', '.join(ANSWERS)}")
    return str(choices[0])


def _time(told: Any) -> datetime | None:
    if told is None:
        return None
    try:
        time = datetime.fromisoformat(told)
    except (TypeError, ValueError) as error:
        raise _TaskError(f"updated_at: {ascii(told)[:40]} is no time") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
