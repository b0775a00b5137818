"""Stage label_pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.annotators import (
    Annotator,
    Label,
    LanguageModel,
    PairItem,
    Panel,
    People,
    Question,
    Questioner,
    SeesPixels,
    TextItem,
    Vote,
    aggregate,
    describe,
    open_panel,
    open_people,
    vote_all,
)
from pipeline.curate.clusters import clusters
from pipeline.engine import Request
from pipeline.label_pairs.batch import next_batch, next_in_cells, within_cells
from pipeline.label_pairs.decide import complete_squares, grade_joint, type_of
from pipeline.label_pairs.proof import Proof, proof_rows, prove_all
from pipeline.parts import Parts, make_again, together, told
from pipeline.stages import STAGES
from pipeline.store import (
    Cells,
    Failures,
    join_tables,
    read_rows,
    row_of,
    rows_with,
    sha256_bytes,
    sha256_text,
    write_rows,
)
from pipeline.synthesize.stage import planned_squares
from pipeline.workspace import Progress, Workspace
from schemas.reviews import REVIEWS
from schemas.rows import FAILURES, PAIRS, PROOFS, SURPLUS, TEXT_PAIR_LABELS, VOTES
from schemas.taxonomy import PairType

__all__ = ["pair_items", "requests", "run", "text_item"]

Row = dict[str, Any]
Names = tuple[str, ...]
T = TypeVar("T")

STAGE = "label_pairs"
APART = ("{taxonomy}", "only_classes", "egress")
ASKED: tuple[Question, ...] = ("text_safe", "text_class", "pair_safe")
TABLES = {
    "pairs": PAIRS, "votes": VOTES, "labels": TEXT_PAIR_LABELS, "proofs": PROOFS, "failures": FAILURES,
}  # fmt: skip


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `pairs.parquet` (accepted), `votes.parquet` and `labels.parquet` (all) and `failures.parquet`.

    Squares are taken in the order they were drafted. Where cells stay short after the wanted number, spare
    neighbours and surplus squares are labelled, `label_pairs.rounds` times at most. Texts are judged without
    the image; pairs are judged together where that decides: the text was judged safe.

    A pair from templates has the type it was made for, or fails: its answer was made for that type. A written
    one has the type that its labels give. No cell keeps more written rows than it wants, but for neighbours.
    `proofs.parquet` holds who says whom the SSU rows harm, where params name anybody for that.

    Nothing here hangs on another class, but for texts that two classes ask: what was made for the others is
    kept (`Parts`). Tables have class after class, and pairs stand in the order they were drafted. Classes are
    judged some thousand drafts at a time, so that memory does not grow with their number.
    """
    failures = Failures(STAGE)
    drafts = workspace.stage_dir("synthesize") / "queries.parquet"
    with Parts(workspace, STAGE, APART) as parts:
        # After the key of the parts: votes that come in between make parts anew.
        people = open_people(workspace, ASKED)
        sizes = _sizes(drafts)
        keys = _keys(workspace, parts, drafts, sizes)
        new = {names: key for names, key in keys.items() if parts.find(key) is None}
        if new:
            with open_panel(workspace, STAGE) as panel:
                batches = any(voter.terms.batch for voter in panel.voters.values())
                for some in together(new, sizes, all_at_once=batches):
                    _make(workspace, parts, panel, {names: new[names] for names in some}, people, progress)
        made = dict(zip(keys, parts.all(list(keys.values())), strict=True))
        write_rows(out / "pairs.parquet", PAIRS, _in_order(drafts, made))
        for name, schema in (("votes", VOTES), ("labels", TEXT_PAIR_LABELS), ("proofs", PROOFS)):
            join_tables(
                out / f"{name}.parquet", schema, [folder / f"{name}.parquet" for folder in made.values()]
            )
        for names, folder in made.items():
            failures.add_from(folder)
            if names not in new and people.left:
                for row in read_rows(folder / "votes.parquet", ["item_id"]):
                    people.take(row["item_id"], ASKED)
    for vote in people.left:
        failures.add(vote.item_id, str(REVIEWS), "vote of a person on what was not judged", vote.annotator)
    failures.write(out)


def _sizes(drafts: Path) -> dict[Names, int]:
    """The parts, in the order of their drafts, with how many they have.

    Classes that ask a text of each other's stand together.
    """
    of_text: dict[str, int] = {}
    numbers: dict[str, int] = {}
    shared: list[tuple[int, int]] = []
    count: Counter[str] = Counter()
    for row in read_rows(drafts, ["harm_class", "query"]):
        number = numbers.setdefault(row["harm_class"], len(numbers))
        count[row["harm_class"]] += 1
        if (other := of_text.setdefault(row["query"], number)) != number:
            shared.append((other, number))
    names = list(numbers)
    groups = [tuple(names[number] for number in group) for group in clusters(len(names), shared)]
    return {group: sum(count[name] for name in group) for group in groups}


def _keys(workspace: Workspace, parts: Parts, drafts: Path, groups: Iterable[Names]) -> dict[Names, str]:
    """The keys of the parts."""
    wanted, squares = planned_squares(workspace)
    images = _known_of_images(workspace)
    infos = {info.name: told(info) for info in workspace.classes()}
    found = {}
    for classes in groups:
        rows = rows_with(drafts, "harm_class", classes)
        found[classes] = parts.key(
            [infos[name] for name in classes],
            [n for cell, n in wanted.items() if cell.class_name in classes],
            [n for (name, _), n in squares.items() if name in classes],
            rows,
            {row["image_id"]: images[row["image_id"]] for row in rows},
        )
    return found


def _in_order(drafts: Path, made: Mapping[Names, Path]) -> Iterator[Row]:
    """The pairs of all parts in the order they were drafted, as they stand in each part."""
    pairs = {names: read_rows(folder / "pairs.parquet") for names, folder in made.items()}
    first = {names: next(rows, None) for names, rows in pairs.items()}
    part_of = {name: names for names in made for name in names}
    for draft in read_rows(drafts, ["pair_id", "harm_class"]):
        names = part_of[draft["harm_class"]]
        pair = first[names]
        if pair is not None and pair["pair_id"] == draft["pair_id"]:
            yield pair
            first[names] = next(pairs[names], None)
    assert not any(first.values()), "a part has its pairs in another order than its drafts"  # noqa: S101


def _known_of_images(workspace: Workspace) -> dict[str, list[Any]]:
    """What judging pairs hangs on of each image: its words and label, and its file where somebody sees it."""
    params = workspace.params
    asked = {name: said for q in STAGES[STAGE].questions for name, said in params.voters(q).items()}
    seers = {name: params.allowed(name) for name, said in asked.items() if said.sees == "pixels"}
    labels = {
        row["image_id"]: [row["image_safe"], row["grade_image"], row["agreement"]]
        for row in read_rows(workspace.stage_dir("label_images") / "labels.parquet")
    }
    columns = ["image_id", "caption", "ocr_text", "intended_class", *(["bytes"] if seers else [])]
    found = {}
    for row in read_rows(workspace.stage_dir("curate") / "images.parquet", columns):
        known = [row["caption"], row["ocr_text"], row["intended_class"], *labels.get(row["image_id"], [])]
        if seers:
            may = sorted(name for name, to in seers.items() if to is None or row["intended_class"] in to)
            known += [may, sha256_bytes(row["bytes"])]
        found[row["image_id"]] = known
    return found


def _make(
    workspace: Workspace,
    parts: Parts,
    panel: Panel,
    keys: Mapping[Names, str],
    people: People,
    progress: Progress,
) -> None:
    """Judge the drafts of some parts, all together, and keep what came of each."""
    part_of = {name: names for names in keys for name in names}
    drafts = rows_with(workspace.stage_dir("synthesize") / "queries.parquet", "harm_class", part_of)
    wanted, squares = planned_squares(workspace)
    written = not squares
    wanted = {cell: n for cell, n in wanted.items() if cell.class_name in part_of}
    squares = {cell: n for cell, n in squares.items() if cell[0] in part_of}
    failures = Failures(STAGE)
    judged: dict[str, Row] = {}
    labeller = _Labeller(workspace, panel.text, panel.pair, people, progress, retypes=written)
    for number in range(workspace.params.label_pairs.rounds):
        if written:
            batch = next_in_cells(drafts, judged, wanted, number)
        else:
            batch = next_batch(drafts, judged, squares, number)
        if not batch:
            break
        judged |= {row["pair_id"]: row for row in labeller.judge(batch, failures)}
    # In the order they were drafted, whatever the round.
    accepted = [judged[r["pair_id"]] for r in drafts if r["pair_id"] in judged]
    kept, alone = complete_squares(row for row in accepted if row["accepted"])
    surplus: list[Row] = []
    if written:
        kept, surplus = within_cells(kept, wanted)
    proofs = _prove(workspace, panel, kept, progress)
    for pair_id, proof in proofs.items():
        judged[pair_id]["ssu_unverified"] = not proof.proven
    for row in alone:
        failures.add(row["pair_id"], row["scene"], "neighbour missing", row["query"])
    for row in [*surplus, *(r for r in drafts if r["pair_id"] not in judged)]:
        failures.add(row["pair_id"], row["scene"], SURPLUS, row["query"])
    of_item = {row["pair_id"]: part_of[row["harm_class"]] for row in drafts}
    for row in drafts:
        of_item.setdefault(sha256_text(row["query"]), part_of[row["harm_class"]])

    def apart(items: Iterable[T], name: Callable[[T], str]) -> dict[Names, list[T]]:
        found: dict[Names, list[T]] = {names: [] for names in keys}
        for item in items:
            found[of_item[name(item)]].append(item)
        return found

    def item_id(row: Row) -> str:
        return str(row["item_id"])

    columns = set(PAIRS.names)
    pairs = apart(kept, lambda row: row["pair_id"])
    votes = apart(labeller.votes, lambda vote: vote.item_id)
    labels = apart(labeller.label_rows(), item_id)
    said = apart(proof_rows(proofs), item_id)
    failed = apart(failures.rows, item_id)
    for names, key in keys.items():
        tables: dict[str, Iterable[Row]] = {
            "pairs": ({k: v for k, v in row.items() if k in columns} for row in pairs[names]),
            "votes": map(row_of, votes[names]),
            "labels": labels[names],
            "proofs": said[names],
            "failures": failed[names],
        }
        with parts.making(key) as folder:
            for name, rows in tables.items():
                write_rows(folder / f"{name}.parquet", TABLES[name], rows)
            if any(v.status == "error" and v.call_key for v in votes[names]) or any(
                row["status"] == "error" and row["call_key"] for row in said[names]
            ):
                make_again(folder)


def _prove(
    workspace: Workspace, panel: Panel, kept: Sequence[Mapping[str, Any]], progress: Progress
) -> dict[str, Proof]:
    """The proofs of SSU rows, where params name anybody who says whom a pair harms."""
    rows = [dict(row) for row in kept if row["type"] == "SSU"]
    if not panel.harm or not rows:
        return {}
    alone = {r["pair_id"]: (r["grade_text"] == "safe", r["grade_image"] == "safe") for r in rows}
    return prove_all(panel.harm, pair_items(workspace, panel.harm, rows), alone, progress)


def pair_items(
    workspace: Workspace, models: Sequence[Questioner[Any]], rows: Sequence[Row]
) -> list[PairItem]:
    """What `models` are given of candidates."""
    images = _Images(workspace, models)
    return [images.pair(row) for row in rows]


def requests(
    workspace: Workspace, panel: Panel, *, again: bool = False
) -> Iterator[tuple[Questioner[Any], list[tuple[str, Request]]]]:
    """Each annotator that asks a model, with all the calls that this stage may have for it: the most.

    Each comes with its class.

    Args:
        workspace: whose candidates they are about.
        panel: of this stage.
        again: only about what was asked when the stage ran last.
    """
    images = _Images(workspace, panel.pair_models)
    for_text, for_pair, for_harm = _about(workspace, images, again=again)
    texts = {sha256_text(row["query"]): text_item(row) for row in reversed(for_text)}
    for annotator in panel.text_models:
        yield annotator, _of_class(annotator, list(texts.values()))
    for reader in panel.pair_models:
        yield reader, _of_class(reader, [images.pair(r) for r in for_pair])
    if panel.harm:
        proven = pair_items(workspace, panel.harm, for_harm)
    for witness in panel.harm:
        yield witness, _of_class(witness, proven)


def _of_class(model: Questioner[Any], items: Sequence[Any]) -> list[tuple[str, Request]]:
    """The calls about items that can be judged, each with its class."""
    calls = zip(items, model.requests(items), strict=True)
    return [(item.policy_class, call) for item, call in calls if call is not None]


def _about(workspace: Workspace, images: _Images, *, again: bool) -> tuple[list[Row], list[Row], list[Row]]:
    """The candidates that may be judged by their text, with their image, and as proofs.

    Before the stages before this have run their class or their image may be gone.
    """
    names = {info.name for info in workspace.classes()}
    rows = read_rows(workspace.stage_dir("synthesize") / "queries.parquet")
    drafts = [row for row in rows if row["harm_class"] in names and row["image_id"] in images]
    if again:
        folder = workspace.stage_dir("label_pairs")
        voted = {row["item_id"] for row in read_rows(folder / "votes.parquet", ["item_id"])}
        kept = read_rows(folder / "pairs.parquet", ["pair_id", "type"])
        proven = {row["pair_id"] for row in kept if row["type"] == "SSU"}
        return (
            [r for r in drafts if sha256_text(r["query"]) in voted],
            [r for r in drafts if r["pair_id"] in voted],
            [r for r in drafts if r["pair_id"] in proven],
        )
    # A written text that is judged safe, though it was meant to be unsafe, is judged with its image too.
    written = workspace.params.synthesize.writer is not None
    return (
        drafts,
        [r for r in drafts if written or r["intended_type"][1] == "S"],
        [r for r in drafts if r["intended_type"] == "SSU"],
    )


def text_item(row: Row) -> TextItem:
    """What annotators are given of a candidate's text alone."""
    return TextItem(sha256_text(row["query"]), row["query"], row["harm_class"])


class _Images:
    """What annotators of pairs are given of each image: it in words, and its file where one sees pixels."""

    def __init__(self, workspace: Workspace, models: Sequence[Questioner[Any]]) -> None:
        path = workspace.stage_dir("curate") / "images.parquet"
        columns = ["image_id", "caption", "ocr_text", "intended_class"]
        self._rows = {r["image_id"]: r | {"row": n} for n, r in enumerate(read_rows(path, columns))}
        seen = any(isinstance(model, SeesPixels) for model in models)
        self._files = Cells(path, "bytes") if seen else None

    def __contains__(self, image_id: str) -> bool:
        """Whether there is such an image."""
        return image_id in self._rows

    def evidence(self, image_id: str) -> str:
        """The image in words."""
        row = self._rows[image_id]
        return describe(row["caption"], row["ocr_text"]) or ""

    def pair(self, row: Row) -> PairItem:
        """The item of a pair."""
        image = self._rows[row["image_id"]]
        jpeg = None if self._files is None else partial(self._files.__getitem__, image["row"])
        evidence = self.evidence(row["image_id"])
        filed = image["intended_class"], row["harm_class"]
        return PairItem(row["pair_id"], evidence, row["query"], jpeg, *filed)


class _Labeller:
    def __init__(
        self,
        workspace: Workspace,
        text: Sequence[Annotator[TextItem]],
        pair: Sequence[Annotator[PairItem]],
        people: People,
        progress: Progress,
        *,
        retypes: bool,
    ) -> None:
        self._retypes = retypes
        self._harms = {info.name: info.spec.policy.expected for info in workspace.classes()}
        self._params = workspace.params
        self._text, self._pair, self._progress = text, pair, progress
        self._image_labels = {
            r["image_id"]: r for r in read_rows(workspace.stage_dir("label_images") / "labels.parquet")
        }
        self._images = _Images(workspace, [a for a in pair if isinstance(a, LanguageModel)])
        self._seers = {a.name for a in pair if isinstance(a, SeesPixels)}
        self._seen: set[str] = set()
        self._given: dict[tuple[str, str], Label] = {}
        self._of_class: dict[tuple[str, str], list[Vote]] = defaultdict(list)
        self.votes: list[Vote] = []
        self._people = people

    def judge(self, rows: Sequence[Row], failures: Failures) -> list[Row]:
        """Label `rows`; each comes back with its labels and whether it is accepted."""
        text_items: dict[str, dict[str, TextItem]] = defaultdict(dict)
        first: dict[str, str] = {}
        for row in rows:
            text = sha256_text(row["query"])
            # One text, one class, should two classes ask the same.
            text_items[first.setdefault(text, row["harm_class"])].setdefault(text, text_item(row))
        by_class = {name: list(some.values()) for name, some in text_items.items()}
        text_labels = self._labels("text_safe", self._text, by_class)
        done, open_rows = [], []
        for row in rows:
            label = text_labels[sha256_text(row["query"])]
            wanted_safe = row["intended_type"][1] == "S"
            row = row | {"text_label": label, "accepted": False}
            differs = (label.value == "safe") != wanted_safe and not self._retypes
            if label.value is None or differs:
                reason = "text could not be scored" if label.value is None else "text label differs"
                failures.add(row["pair_id"], row["scene"], reason, f"{row['intended_type']}: {row['query']}")
                done.append(row)
            else:
                open_rows.append(row)
        pairs: dict[str, list[PairItem]] = defaultdict(list)
        for row in open_rows:
            if row["text_label"].value == "safe":
                pairs[row["harm_class"]].append(self._images.pair(row))
        pair_labels = self._labels("pair_safe", self._pair, pairs)
        done += [self._decide(row, pair_labels.get(row["pair_id"]), failures) for row in open_rows]
        return done

    def _decide(self, row: Row, joint: Label | None, failures: Failures) -> Row:
        """Accept or fail a row by its labels; `joint` is None where an unsafe text makes the pair unsafe."""
        image, text = self._image_labels[row["image_id"]], row["text_label"]
        if joint is not None and joint.value is None:
            failures.add(row["pair_id"], row["scene"], "pair could not be scored", row["query"])
            return row
        pair_safe = joint is not None and joint.value == "safe"
        given = type_of(image["image_safe"], text.value == "safe", pair_safe)
        kind = row["intended_type"]
        if self._retypes and given != "USU":  # what a USU row expects only its writer could tell
            kind = given
        refuses_usu = kind == "USU" and row["expected"] != "safe_complete"
        if given != kind or (refuses_usu and pair_safe):
            detail = f"{row['intended_type']}: {row['query']} | {self._images.evidence(row['image_id'])}"
            failures.add(row["pair_id"], row["scene"], "pair label differs", detail)
            return row
        agreements = [image["agreement"], text.agreement, *([joint.agreement] if joint else [])]
        return row | {
            "accepted": True,
            "type": given,
            "expected": self._expected(row, given),
            "grade_image": image["grade_image"],
            "grade_text": text.value,
            "grade_joint": grade_joint(given, self._expected(row, given)),
            "text_score": text.score,
            "pair_score": joint.score if joint else None,
            "agreement": round(sum(agreements) / len(agreements), 3),
            # Who reads a caption cannot tell what else is in the picture.
            "ssu_unverified": given == "SSU" and row["pair_id"] not in self._seen,
        }

    def _expected(self, row: Row, kind: PairType) -> str:
        """What a pair deserves; one of another type than it was made for what its class's policy says."""
        if kind == row["intended_type"]:
            return str(row["expected"])
        return "comply" if kind == "SSS" else self._harms[row["harm_class"]]

    def _labels(
        self,
        question: Literal["text_safe", "pair_safe"],
        annotators: Sequence[Annotator[Any]],
        items: Mapping[str, Sequence[Any]],
    ) -> dict[str, Label]:
        """Labels of items, which come by class; they are estimated from all votes on their class so far."""
        # A text may come again with another image: it has its votes.
        new = {
            name: [item for item in some if (item.id, question) not in self._given]
            for name, some in items.items()
        }
        asked = [item for some in new.values() for item in some]
        votes: dict[str, list[Vote]] = {item.id: [] for item in asked}
        for vote in vote_all(annotators, asked, self._progress) if asked else []:
            votes[vote.item_id].append(vote)
            if vote.status == "ok" and vote.annotator in self._seers:
                self._seen.add(vote.item_id)
        on: tuple[Question, ...] = ("text_safe", "text_class") if question == "text_safe" else ("pair_safe",)
        for item in asked:
            votes[item.id] += self._people.take(item.id, on)
        self.votes += [vote for given in votes.values() for vote in given]
        threshold = getattr(self._params.thresholds, question)
        for name, some in new.items():
            known = self._of_class[question, name]
            known += [v for item in some for v in votes[item.id] if v.question == question]
            labels = aggregate(known, threshold)
            for item in some:
                self._given[item.id, question] = labels.get(item.id, Label(None, None, None, 0))
        return {item.id: self._given[item.id, question] for some in items.values() for item in some}

    def label_rows(self) -> Iterator[Row]:
        """Every label given so far."""
        for (item_id, question), label in self._given.items():
            if label.value is not None:
                yield {
                    "item_id": item_id,
                    "question": question,
                    "safe": label.value == "safe",
                    "score": label.score,
                    "agreement": label.agreement,
                }
