"""Responses that a model writes: asked for, checked, asked for again with what was wrong, or failed.

Every pair is asked about once, classes of some thousand pairs together, so that memory does not grow with
their number; those whose responses are wrong make the next round of their class. Answers are looked at class
after class, and in the order of the pairs, whatever order they came in: a response gives way to those before
it alone, so that the same build takes the same, and a class that is added changes no other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.annotators import describe, open_panel
from pipeline.annotators.llm import MAX_CHARS
from pipeline.cells import quotas_of
from pipeline.parts import Parts, make_again, together, told
from pipeline.respond.checks import problem_with, problem_with_rationale
from pipeline.respond.prompts import Asked, WriterPrompt, load_writer_prompts
from pipeline.respond.repeats import Repeats, digest
from pipeline.store import (
    Cells,
    Failures,
    join_tables,
    read_rows,
    rows_with,
    sha256_bytes,
    write_json,
    write_rows,
)
from schemas.responses import WrittenResponse, WrittenWithRationale
from schemas.rows import CALLS, RESPONSES
from schemas.safeguards import forbidden_reason

if TYPE_CHECKING:
    from pipeline.annotators import Asking, Panel, Voter
    from pipeline.engine import Answer, CallCache, Request
    from pipeline.workspace import Progress, Workspace
    from schemas.taxonomy import ClassInfo

__all__ = ["estimate", "requests", "write_responses"]

PARAMS = {"temperature": 0, "max_tokens": 600}
STAGE = "respond"
APART = ("{taxonomy}", "{prompts}/queries", "{prompts}/responses.yaml", "egress")
COMPARED = "compared.json"
ITEM_CHARS = 300
"""Taken for the length of an item that is not there yet."""
SEEN = "the one above"
CUT_OFF = "finish_reason length"
"""What the engine says of an answer that its length ended."""
QUOTED = 300
"""Characters of an answer that was cut off which the next question quotes: it may have run in circles."""
SELF_HARM = "self_harm"
"""The category whose support is held to its tone."""
CHUNK = 256
PAIR = ("pair_id", "image_id", "query", "scene", "harm_class", "type", "expected")
IMAGE = ("image_id", "caption", "subject", "objects", "ocr_text", "intended_class")


@dataclass(frozen=True)
class _Asker:
    """Who asks, as plans call it."""

    name: str
    voter: Voter


@dataclass(slots=True)
class _Job:
    """A pair on its way.

    Attributes:
        pair: its row.
        said: what was answered so far, each with what was wrong with it.
        keys: of the calls so far.
        answer: what was answered last, before it is looked at.
        done: whether nothing more is asked about it.
        response: what was taken.
    """

    pair: dict[str, Any]
    said: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    answer: Answer | None = None
    done: bool = False
    response: WrittenResponse | WrittenWithRationale | None = None


@dataclass
class _OfClass:
    """The pairs of one class.

    Attributes:
        info: the class.
        jobs: its pairs, in their order.
        repeats: the responses that were taken, which none after it may repeat.
        compared: the digest of each response that was held against those of the classes before this one, and
            whether it is a copy of one of them.
        failures: pairs without a response.
        unanswered: whether a call had no answer, but an error.
    """

    info: ClassInfo
    jobs: list[_Job]
    repeats: Repeats
    compared: dict[str, bool] = field(default_factory=dict)
    failures: Failures = field(default_factory=lambda: Failures(STAGE))
    unanswered: bool = False

    def taken(self) -> set[str]:
        """The digests of its responses."""
        return {digest(job.response.response) for job in self.jobs if job.response is not None}


Ask = Callable[[Sequence[_Job]], Iterable["Answer | None"]]


def write_responses(workspace: Workspace, out: Path, failures: Failures, progress: Progress) -> None:
    """Have the responses of all accepted pairs written: `responses.parquet` and `calls.parquet` in `out`.

    What was written for a class is kept (`Parts`). It holds as long as its pairs do, and the same of its
    responses are copies of those of the classes before it.

    Args:
        workspace: whose pairs they are.
        out: where the tables go.
        failures: takes those that were not written, or not well.
        progress: is told of each call.

    Raises:
        EndpointError: when the writer cannot be used, or the budget is spent. What was answered is kept.
    """
    writer = workspace.params.respond.writer
    assert writer is not None  # noqa: S101 - else nobody comes here
    with open_panel(workspace, STAGE) as panel, Parts(workspace, STAGE, APART) as parts:
        voter = panel.voters[writer]
        writing = _Writing(workspace, voter)
        name = f"{voter.backend_id}/{voter.model}"
        keys = {info.name: parts.key(*writing.hangs_on(info)) for info in writing.classes}

        def ask(jobs: Sequence[_Job]) -> list[Answer | None]:
            return writing.asked(jobs, progress)

        missing = [name for name, key in keys.items() if parts.find(key) is None]
        new = together(missing, writing.sizes, all_at_once=voter.terms.batch)
        begun: dict[str, _OfClass] = {}
        taken: set[str] = set()
        for info in writing.classes:
            folder = parts.find(keys[info.name])
            if folder is None or not _holds(folder, taken):
                if info.name not in begun:
                    some = [info.name] if folder is not None else next(new)
                    begun |= {each: writing.begin(writing.infos[each]) for each in some}
                    _ask_open([job for one in begun.values() for job in one.jobs], ask)
                one = begun.pop(info.name)
                writing.go(one, taken, ask)
                with parts.making(keys[info.name]) as made:
                    _write(one, made, name)
                taken |= one.taken()
            else:
                texts = read_rows(folder / "responses.parquet", ["response"])
                taken |= {digest(row["response"]) for row in texts}
        folders = parts.all(list(keys.values()))
    for table, schema in (("responses", RESPONSES), ("calls", CALLS)):
        join_tables(out / f"{table}.parquet", schema, [folder / f"{table}.parquet" for folder in folders])
    for folder in folders:
        failures.add_from(folder)


def _holds(folder: Path, taken: Collection[str]) -> bool:
    """Whether what was held against the responses of other classes would come out the same."""
    compared: dict[str, bool] = json.loads((folder / COMPARED).read_text())
    return all(copied == (text in taken) for text, copied in compared.items())


def _write(one: _OfClass, folder: Path, generator: str) -> None:
    """What came of a class."""
    rows = [row for job in one.jobs if (row := _row(job, generator)) is not None]
    calls = [
        {"item_id": job.pair["pair_id"] if job.response else "", "call_key": key}
        for job in one.jobs
        for key in job.keys
    ]
    write_rows(folder / "responses.parquet", RESPONSES, rows)
    write_rows(folder / "calls.parquet", CALLS, calls)
    write_json(folder / COMPARED, one.compared)
    one.failures.write(folder)
    if one.unanswered:
        make_again(folder)


def requests(workspace: Workspace, panel: Panel) -> Iterator[tuple[Asking, list[tuple[str, Request]]]]:
    """Who asks, with the calls that this stage has for it, as far as they follow from answers that are kept.

    Each comes with its class.

    A response that has to be asked for again makes a call that nobody can write out before.
    """
    from pipeline.engine import open_cache

    writer = workspace.params.respond.writer
    if writer is None:
        return
    voter = panel.voters[writer]
    writing = _Writing(workspace, voter)
    calls: list[tuple[str, Request]] = []
    with open_cache(workspace.calls) as cache:

        def known(jobs: Sequence[_Job]) -> Iterator[Answer | None]:
            for chunk in _chunks(jobs, CHUNK):
                mine = [writing.request(job) for job in chunk]
                calls.extend(zip((job.pair["harm_class"] for job in chunk), mine, strict=True))
                yield from _kept(cache, mine)

        taken: set[str] = set()
        for info in writing.classes:
            one = writing.begin(info)
            writing.go(one, taken, known)
            taken |= one.taken()
    yield _Asker(f"response-writer@{voter.name}", voter), calls


def estimate(
    workspace: Workspace, panel: Panel, classes: Collection[str]
) -> Iterator[tuple[Asking, Request, Mapping[str, int]]]:
    """Who asks before the pairs are made, with a call like those to come, and how many there may be.

    Args:
        workspace: whose quotas say how many pairs are wanted.
        panel: of this stage.
        classes: whose pairs are counted.
    """
    writer = workspace.params.respond.writer
    if writer is None:
        return
    voter = panel.voters[writer]
    prompts = _prompts(workspace)
    longest = max(prompts.values(), key=lambda prompt: len(str(prompt.prefix)))
    info = workspace.classes()[0]
    asked = Asked("", info, "x" * ITEM_CHARS, "x" * ITEM_CHARS, image_safe=True, text_safe=True)
    image = None if voter.blobs is None else sha256_bytes(b"")
    params = workspace.params
    pairs = {
        i.name: sum(quotas_of(i, params.quotas, params.quota_scale).values())
        for i in workspace.classes()
        if i.name in classes
    }
    example = _request(voter, longest, asked, workspace.params.seed, image)
    yield _Asker(f"response-writer@{voter.name}", voter), example, pairs


class _Writing:
    """The pairs of a workspace on their way through the rounds."""

    def __init__(self, workspace: Workspace, voter: Voter) -> None:
        self._voter = voter
        self._params = workspace.params
        self._prompts = _prompts(workspace)
        path = workspace.stage_dir("curate") / "images.parquet"
        self._images = {r["image_id"]: r | {"row": n} for n, r in enumerate(read_rows(path, IMAGE))}
        self._files = Cells(path, "bytes") if voter.blobs is not None else None
        self._sha256: dict[str, str] = {}
        self._examples = [e.answer["response"] for p in self._prompts.values() for e in p.examples]
        self._pairs = workspace.stage_dir("label_pairs") / "pairs.parquet"
        self.infos = {info.name: info for info in workspace.classes()}
        self.sizes = Counter(row["harm_class"] for row in read_rows(self._pairs, ["harm_class"]))
        # Before the stages before this have run, the class of a pair may be gone.
        known = (self.infos[name] for name in self.sizes if name in self.infos)
        self.classes = sorted(known, key=lambda info: info.id)

    def _pairs_of(self, info: ClassInfo) -> list[dict[str, Any]]:
        """Its pairs; before the stages before this have run, the image of one may be gone."""
        pairs = rows_with(self._pairs, "harm_class", [info.name], PAIR)
        return [pair for pair in pairs if pair["image_id"] in self._images]

    def hangs_on(self, info: ClassInfo) -> list[Any]:
        """Everything that the responses of a class hang on, beside those of the classes before it."""
        pairs = self._pairs_of(info)
        images = {pair["image_id"] for pair in pairs}
        known: dict[str, list[Any]] = {}
        for image_id in sorted(images):
            image = self._images[image_id]
            known[image_id] = [image[name] for name in IMAGE]
            if self._files is not None:
                known[image_id] += [self._sha(image_id), self._may_send(image_id)]
        return [told(info), pairs, known]

    def begin(self, info: ClassInfo) -> _OfClass:
        """The pairs of a class, without those that nothing can be asked about."""
        one = _OfClass(info, [_Job(pair) for pair in self._pairs_of(info)], Repeats(self._examples))
        for job in one.jobs:
            if reason := self._why_not(job):
                _fail(one, job, reason, job.pair["query"])
        return one

    def go(self, one: _OfClass, taken: Collection[str], ask: Ask) -> None:
        """Ask about every pair of a class, look at the answers, and ask again, as often as params say.

        Where `ask` gives None for an answer, nothing more follows for its pair.

        Args:
            one: the class.
            taken: digests of the responses of the classes before it.
            ask: gives answers.
        """
        attempts = self._params.respond.attempts
        for attempt in range(1, attempts + 1):
            _ask_open(one.jobs, ask)
            for job in one.jobs:
                if not job.done and job.answer is not None:
                    self._look(one, job, job.answer, taken, last=attempt == attempts)
                    job.answer = None

    def request(self, job: _Job) -> Request:
        """The next call about a pair."""
        pair = job.pair
        seen = None if self._files is None else self._sha(pair["image_id"])
        asked = Asked(
            pair["pair_id"],
            self.infos[pair["harm_class"]],
            self._evidence(pair["image_id"]),
            pair["query"],
            image_safe=pair["type"][0] == "S",
            text_safe=pair["type"][1] == "S",
        )
        request = _request(self._voter, self._prompts[pair["expected"]], asked, self._params.seed, seen)
        for raw, why in job.said:
            request = request.asked_again(raw, why)
        return request

    def asked(self, jobs: Sequence[_Job], progress: Progress) -> list[Answer | None]:
        """The answers of the endpoint; an outage is none."""
        from pipeline.engine import all_answered

        progress.start("responses", len(jobs))
        found: list[Answer | None] = [None] * len(jobs)
        for places, warm in self._batches(jobs):

            def take(i: int, answer: Answer, places: Sequence[int] = places) -> None:
                found[places[i]] = answer
                progress.advance()

            calls = (self._kept_request(jobs[place]) for place in places)
            self._voter.engine.ask_each(calls, take, stage=STAGE, warm=warm)
        answers = [answer for answer in found if answer is not None]
        all_answered(self._voter.name, answers)
        return found

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[tuple[list[int], list[dict[str, Any]] | None]]:
        """The places of what is asked together, in the order in which it is, and what warms a local model."""
        if self._voter.local:
            for expected, prompt in self._prompts.items():
                mine = [i for i, job in enumerate(jobs) if job.pair["expected"] == expected]
                if mine:
                    yield mine, prompt.prefix
        elif self._files is not None:
            # In the order of their table, of which few parts are in memory at once.
            yield sorted(range(len(jobs)), key=lambda i: self._images[jobs[i].pair["image_id"]]["row"]), None
        else:
            yield list(range(len(jobs))), None

    def _kept_request(self, job: _Job) -> Request:
        """The next call, with its picture kept for the engine to send."""
        request = self.request(job)
        if self._files is not None:
            assert self._voter.blobs is not None  # noqa: S101 - else no files are open
            self._voter.blobs.put(self._files[self._images[job.pair["image_id"]]["row"]])
        return request

    def _sha(self, image_id: str) -> str:
        if image_id not in self._sha256:
            assert self._files is not None  # noqa: S101 - asked by those who send pictures
            self._sha256[image_id] = sha256_bytes(self._files[self._images[image_id]["row"]])
        return self._sha256[image_id]

    def _evidence(self, image_id: str) -> str:
        if self._files is not None:
            return f"Picture: {SEEN}"
        row = self._images[image_id]
        return describe(row["caption"] or row["subject"] or ", ".join(row["objects"]), row["ocr_text"]) or ""

    def _why_not(self, job: _Job) -> str:
        """Why nothing can be asked about a pair; empty where it can."""
        if self._files is not None and not self._may_send(job.pair["image_id"]):
            return "the image may not be sent to the writer"
        evidence = self._evidence(job.pair["image_id"])
        if not evidence:
            return "nothing is known of the image in words"
        if len(evidence) + len(job.pair["query"]) > MAX_CHARS:
            return f"image and query are longer than {MAX_CHARS} characters"
        return ""

    def _may_send(self, image_id: str) -> bool:
        allowed = self._voter.egress
        return allowed is None or self._images[image_id]["intended_class"] in allowed

    def _look(self, one: _OfClass, job: _Job, answer: Answer, taken: Collection[str], *, last: bool) -> None:
        """Take an answer, or note what is wrong with it."""
        if answer.status == "error":
            one.unanswered = True
        else:
            job.keys.append(answer.key)
        said = answer.value
        if answer.status == "ok" and isinstance(said, WrittenResponse | WrittenWithRationale):
            problem = self._problem(one, job, said, taken)
            if not problem:
                job.done, job.response = True, said
                refusal = job.pair["expected"] in {"refuse", "support"}
                one.repeats.add(job.pair["pair_id"], job.pair["harm_class"], said.response, near=refusal)
                return
            reason, quoted = f"response {problem}", answer.raw
        elif answer.status == "unscorable" and answer.error == CUT_OFF:
            problem, reason, quoted = (
                "it was cut off; write less",
                "response was cut off",
                answer.raw[:QUOTED],
            )
        else:
            # What a model or a filter will not say, it does not say when asked again.
            _fail(one, job, f"response not written ({answer.status})", answer.raw or answer.error)
            return
        if last:
            _fail(one, job, reason, answer.raw)
        else:
            job.said.append((quoted, problem))

    def _problem(
        self,
        one: _OfClass,
        job: _Job,
        said: WrittenResponse | WrittenWithRationale,
        taken: Collection[str],
    ) -> str | None:
        pair, info = job.pair, one.info
        image = self._images[pair["image_id"]]
        words = " ".join(
            [image["caption"] or "", image["subject"] or "", *image["objects"], image["ocr_text"] or ""]
        )
        if isinstance(said, WrittenResponse) and forbidden_reason(said.response):
            return "joins words for a minor with sexual words"
        problem = problem_with(
            said.response,
            pair["expected"],
            image=words,
            query=pair["query"],
            self_harm=info.category == SELF_HARM,
        )
        if problem is None and isinstance(said, WrittenWithRationale):
            problem = problem_with_rationale(
                said.rationale,
                said.response,
                info.name,
                pair["expected"],
                image=words,
                query=pair["query"],
            )
        if problem is None:
            text = digest(said.response)
            copied = one.compared[text] = text in taken
            if copied or one.repeats.copied(said.response):
                problem = "is a copy of another row's response"
        if problem is None and pair["expected"] in {"refuse", "support"}:
            near = one.repeats.near(info.name, said.response)
            problem = "is nearly the same as another row's" if near else None
        return problem


def _ask_open(jobs: Sequence[_Job], ask: Ask) -> None:
    """Ask about the pairs that are not done and wait for no look."""
    waiting = [job for job in jobs if not job.done and job.answer is None]
    if not waiting:
        return
    for job, answer in zip(waiting, ask(waiting), strict=True):
        job.answer, job.done = answer, answer is None


def _fail(one: _OfClass, job: _Job, reason: str, detail: str) -> None:
    job.done = True
    one.failures.add(job.pair["pair_id"], job.pair["scene"], reason, detail)


def _prompts(workspace: Workspace) -> dict[str, WriterPrompt]:
    return load_writer_prompts(workspace.root / workspace.params.prompts / "respond")


def _request(voter: Voter, prompt: WriterPrompt, asked: Asked, seed: int, image: str | None) -> Request:
    from pipeline.engine import Request

    params = {k: v for k, v in {**PARAMS, **voter.parameters}.items() if v is not None}
    messages = prompt.messages(asked, seed, image)
    return Request(voter.backend_id, voter.model, messages, params, prompt.answer)


def _row(job: _Job, generator: str) -> dict[str, str] | None:
    if job.response is None:
        return None
    rationale = ""
    if isinstance(job.response, WrittenWithRationale):
        rationale = json.dumps(job.response.rationale.model_dump(), ensure_ascii=False)
    return {
        "pair_id": job.pair["pair_id"],
        "response": job.response.response,
        "rationale": rationale,
        "generator": generator,
    }


def _chunks(jobs: Sequence[_Job], size: int) -> Iterator[list[_Job]]:
    left = iter(jobs)
    while chunk := list(islice(left, size)):
        yield chunk


def _kept(cache: CallCache, calls: Sequence[Request]) -> Iterator[Answer | None]:
    """The answer of each call that the cache has and that settles it."""
    from pipeline.engine import Answer
    from pipeline.engine.answers import judge

    records: Mapping[str, Any] = cache.get_many([call.key for call in calls])
    for call in calls:
        record = records.get(call.key)
        status, value, why = judge(record, call.schema) if record is not None else ("wrong", None, "")
        if record is None or status == "wrong":
            yield None
        else:
            yield Answer(status, value, record.response_text, call.key, True, 1, 0, 0, why)
