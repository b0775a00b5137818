"""Stage assemble."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.assemble.card import write_card
from pipeline.assemble.croissant import write_croissant
from pipeline.assemble.figures import Tally, figures
from pipeline.parts import Parts
from pipeline.runner import last_output
from pipeline.store import (
    Failures,
    read_rows,
    rows_with,
    sha256_bytes,
    sha256_file,
    sha256_text,
    take_over,
    write_bytes,
    write_json,
    write_rows,
    write_text,
)
from pipeline.synthesize.squares import row_id_of
from pipeline.workspace import Progress, Workspace
from schemas.rows import CLASS_NONE, DATASET, VOTE
from schemas.taxonomy import ClassInfo, Taxonomy

__all__ = ["BENCH_FIELDS", "run"]

STAGE = "assemble"
APART = ("{taxonomy}", "quotas", "quota_scale", "split", "only_classes")

BENCH_FIELDS = ("id", "image", "query", "type", "category", "subcategory", "image_safe", "image_safety_label")
LEFT_OUT_FIELDS = ("image_id", "source_uri", "page_url", "author", "licence")
IMAGE_WORDS = (
    "image_id",
    "intended_class",
    "caption",
    "source_uri",
    "page_url",
    "source_package",
    "author",
    "licence",
    "redistributable",
    "retrieved_at",
    "generator",
    "source_kind",
    "personal_data",
    "faces",
    "stripped",
    "width",
    "height",
)
ROWS_PER_SHARD = 1000
CANARY = (
    "holisafe-pipeline dataset; do not train on its test split; canary 5f1c2f0e-6c0e-4d3a-9a53-2b8f9b1f7c11"
)


@dataclass(frozen=True, slots=True)
class _Images:
    """Everything but the bytes of the images of curate, and their labels, by id."""

    known: dict[str, dict[str, Any]]
    labels: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Place:
    """A row before anything else is known of it: where it goes."""

    id: int
    image_id: str
    path: str
    info: ClassInfo


Places = dict[tuple[str, str], dict[str, _Place]]
"""By category and subcategory, the places of pairs by their id, in the order of these."""


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write the dataset to `out`.

    `data/<category>/<subcategory>/{train,test}-NNNNN.parquet` with everything known of a row;
    `holisafe_bench.json` and `images/` in HoliSafe's format; `README.md`, the card; `croissant.json`, the
    same for machines; `failures.parquet` stands beside as `meta/failures.parquet` so that no data loader
    takes it for rows. Images that may not be given away are left out where params say so: their rows stay,
    and `meta/images_left_out.jsonl` tells where each came from and where in `images/` it belongs.

    Shards and images that are as they were in the last dataset are taken over from it, not written again.
    """
    failures = Failures("assemble")
    path = workspace.stage_dir("label_images") / "labels.parquet"
    images = _Images(
        {r["image_id"]: r for r in read_rows(_images(workspace), IMAGE_WORDS)},
        {r["image_id"]: r for r in read_rows(path)},
    )
    places = _places(workspace, images, failures)
    paths = {place.image_id: place.path for of in places.values() for place in of.values()}
    left_out = {i: path for i, path in paths.items() if not _released(images.known[i], workspace)}
    lines = [
        json.dumps({"path": path} | {f: images.known[i][f] for f in LEFT_OUT_FIELDS}, ensure_ascii=False)
        for i, path in sorted(left_out.items(), key=lambda told: told[1])
    ]
    write_text(out / "meta" / "images_left_out.jsonl", "".join(line + "\n" for line in lines))
    former = last_output(workspace, STAGE)
    written = {i: path for i, path in paths.items() if i not in left_out}
    hashes = _write_images(written, former, workspace, out, progress)
    tally = Tally()
    bench: list[dict[str, Any]] = []
    for row in _write_shards(places, images, hashes, former, workspace, out, progress):
        tally.add(row)
        bench.append({f: row["image"]["path"] if f == "image" else row[f] for f in BENCH_FIELDS})
    write_json(out / "holisafe_bench.json", sorted(bench, key=lambda r: r["id"]))
    counted = figures(tally, images.known, _Votes(workspace), left_out.keys(), workspace)
    write_card(out / "README.md", tally, images.known, counted, workspace)
    write_croissant(out, counted)
    failures.write(out / "meta")


def _places(workspace: Workspace, images: _Images, failures: Failures) -> Places:
    """Where each pair goes that has a response; two that would have one id, or images of one path, fail."""
    answered = {
        r["pair_id"] for r in read_rows(workspace.stage_dir("respond") / "responses.parquet", ["pair_id"])
    }
    columns = ["pair_id", "image_id", "harm_class", "type", "scene"]
    pairs = [
        pair
        for pair in read_rows(workspace.stage_dir("label_pairs") / "pairs.parquet", columns)
        if pair["pair_id"] in answered
    ]
    ids: dict[int, str] = {}
    paths: dict[str, str] = {}
    places: Places = defaultdict(dict)
    for pair in sorted(pairs, key=lambda p: p["pair_id"]):
        row_id = row_id_of(pair["pair_id"])
        if row_id in ids:
            failures.add(pair["pair_id"], pair["scene"], "id taken", f"by {ids[row_id]}")
            continue
        folder = _folder(images, pair["image_id"])
        path = image_path(pair["image_id"], folder, workspace.taxonomy)
        if paths.setdefault(path, pair["image_id"]) != pair["image_id"]:
            failures.add(pair["pair_id"], pair["scene"], "image path taken", f"{path} by {paths[path]}")
            continue
        ids[row_id] = pair["pair_id"]
        # HoliSafe: a row's category follows its image's folder, in SUU rows the harm in the text.
        info = workspace.taxonomy.by_name(pair["harm_class"] if pair["type"] == "SUU" else folder)
        places[info.category, info.name][pair["pair_id"]] = _Place(row_id, pair["image_id"], path, info)
    return places


def _folder(images: _Images, image_id: str) -> str:
    """The class in whose folder an image lies: that of its label, or of a safe one what it was made for."""
    of_label = images.labels[image_id]["image_class"]
    return str(images.known[image_id]["intended_class"] if of_label == CLASS_NONE else of_label)


class _Votes:
    """The votes of a build that rows and figures rest on; they can be gone through more than once.

    A vote on the class hangs on all classes: a new one would change the rows of every other.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._tables = [
            workspace.stage_dir(stage) / "votes.parquet" for stage in ("label_images", "label_pairs")
        ]
        self._columns = ["item_id", *(field.name for field in VOTE)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for table in self._tables:
            for vote in read_rows(table, self._columns):
                if not vote["question"].endswith("_class"):
                    yield vote

    def on(self, items: Collection[str]) -> dict[str, list[dict[str, Any]]]:
        """The votes on some items, without their item."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for table in self._tables:
            for vote in rows_with(table, "item_id", items, self._columns):
                if not vote["question"].endswith("_class"):
                    found[vote.pop("item_id")].append(vote)
        return found


def _images(workspace: Workspace) -> Path:
    return workspace.stage_dir("curate") / "images.parquet"


def _released(image: Mapping[str, Any], workspace: Workspace) -> bool:
    """Whether an image, or that of a row, may go out."""
    return workspace.params.assemble.images == "all" or image["redistributable"] == "yes"


def image_path(image_id: str, class_name: str, taxonomy: Taxonomy) -> str:
    """Where HoliSafe's layout puts an image, below `images/`; the number comes from the image itself."""
    category = taxonomy.by_name(class_name).category
    folder = category if category == class_name else f"{category}/{class_name}"
    return f"{folder}/{class_name}_{int(image_id[:8], 16)}.jpg"


def _rows(workspace: Workspace, images: _Images, places: Mapping[str, _Place]) -> list[dict[str, Any]]:
    """The rows of some pairs, in the order of their places; without the bytes of their images."""
    pairs = rows_with(workspace.stage_dir("label_pairs") / "pairs.parquet", "pair_id", places)
    said = rows_with(workspace.stage_dir("respond") / "responses.parquet", "pair_id", places)
    responses = {response["pair_id"]: response for response in said}
    texts = {pair["pair_id"]: sha256_text(pair["query"]) for pair in pairs}
    items = {item for pair in pairs for item in (pair["pair_id"], pair["image_id"], texts[pair["pair_id"]])}
    votes = _Votes(workspace).on(items)
    rows = {}
    for pair in pairs:
        pair_id, image_id = pair["pair_id"], pair["image_id"]
        given = [vote for item in (image_id, texts[pair_id], pair_id) for vote in votes[item]]
        rows[pair_id] = _row(workspace, images, places[pair_id], pair, responses[pair_id], given)
    return [rows[pair_id] for pair_id in places]


def _row(
    workspace: Workspace,
    images: _Images,
    place: _Place,
    pair: Mapping[str, Any],
    response: Mapping[str, Any],
    votes: list[dict[str, Any]],
) -> dict[str, Any]:
    taxonomy = workspace.taxonomy
    image, label = images.known[place.image_id], images.labels[place.image_id]
    return {
        "id": place.id,
        "image": {"bytes": None, "path": place.path},
        "query": pair["query"],
        "type": pair["type"],
        "category": place.info.category,
        "subcategory": place.info.name,
        "image_safe": label["image_safe"],
        "image_safety_label": 0 if label["image_safe"] else taxonomy.by_name(label["image_class"]).id,
        "grade_image": pair["grade_image"],
        "grade_text": pair["grade_text"],
        "grade_joint": pair["grade_joint"],
        "expected": pair["expected"],
        "class_key": taxonomy.by_name(pair["harm_class"]).class_key,
        "response": response["response"],
        "rationale": response["rationale"],
        "votes": votes,
        "agreement": pair["agreement"],
        "contrast_square": pair["square"],
        "scene": pair["scene"],
        "ssu_unverified": pair["ssu_unverified"],
        "caption": image["caption"],
        "image_id": pair["image_id"],
        "query_id": pair["query_id"],
        "source_uri": image["source_uri"],
        "page_url": image["page_url"],
        "source_package": image["source_package"],
        "author": image["author"],
        "licence": image["licence"],
        "redistributable": image["redistributable"],
        "retrieved_at": image["retrieved_at"],
        "generator": image["generator"],
        "query_writer": pair["writer"],
        "response_writer": response["generator"],
        "lang": "en",
        "translation_of": None,
        "policy_version": taxonomy.policy_version,
        "canary": CANARY,
        "tier": workspace.params.tier,
        "generator_terms": "",
        "split": pair["split"],
    }


def _write_images(
    paths: Mapping[str, str], former: Mapping[str, str], workspace: Workspace, out: Path, progress: Progress
) -> dict[str, str]:
    """Write each image that may go out as a file of its own, in one pass over the table of images.

    Args:
        paths: of these images, by id.
        former: the files of the last dataset, with their SHA-256.
        workspace: of the build.
        out: the new dataset.
        progress: is told of each.

    Returns:
        Their SHA-256 by path.
    """
    progress.start("images", len(paths))
    found = {}
    for image in read_rows(_images(workspace), ["image_id", "bytes"]):
        if (path := paths.get(image["image_id"])) is not None:
            file = Path("images") / path
            found[path] = sha256_bytes(image["bytes"])
            if former.get(str(file)) == found[path]:
                take_over(workspace.stage_dir(STAGE) / file, out / file)
            else:
                write_bytes(out / file, image["bytes"])
            progress.advance()
    return found


def _write_shards(
    places: Places,
    images: _Images,
    hashes: Mapping[str, str],
    former: Mapping[str, str],
    workspace: Workspace,
    out: Path,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Write shards for each subcategory and side; a new subcategory adds files and changes none.

    Yields:
        Each row when it is written; those of one subcategory are in memory.
    """
    schema = _schema()
    parts = Parts(workspace, STAGE, APART)
    # Of each shard what it was made from, and what it was then.
    index = workspace.state / "parts" / f"{STAGE}.json"
    made: dict[str, list[str]] = json.loads(index.read_text()) if index.exists() else {}
    known: dict[str, list[str]] = {}
    progress.start("rows", sum(map(len, places.values())))
    for (category, subcategory), of in sorted(places.items()):
        rows = _rows(workspace, images, of)
        for split in sorted({row["split"] for row in rows}):
            members = [row for row in rows if row["split"] == split]
            for start in range(0, len(members), ROWS_PER_SHARD):
                part = members[start : start + ROWS_PER_SHARD]
                name = f"data/{category}/{subcategory}/{split}-{start // ROWS_PER_SHARD:05d}.parquet"
                key = parts.key(str(schema), [[row, hashes.get(row["image"]["path"])] for row in part])
                if name in former and made.get(name) == [key, former[name]]:
                    take_over(workspace.stage_dir(STAGE) / name, out / name)
                    known[name] = made[name]
                else:
                    full = (_with_image(row, workspace, out) for row in part)
                    write_rows(out / name, schema, full, repeated=["image.bytes"])
                    known[name] = [key, sha256_file(out / name)]
                progress.advance(len(part))
                yield from part
        del rows, members, part  # else they are there while the next are made
    write_json(index, known)


def _with_image(row: dict[str, Any], workspace: Workspace, out: Path) -> dict[str, Any]:
    """The row as it stands in its shard, with the image as `datasets` opens it."""
    # Rows lie in another order than the table of images, so bytes come from the files written before.
    # Where they are left out there is no image at all: a path alone would be opened.
    path = row["image"]["path"]
    released = _released(row, workspace)
    image = {"bytes": (out / "images" / path).read_bytes(), "path": path} if released else None
    return {k: v for k, v in row.items() if k != "split"} | {"image": image}


def _schema() -> pa.Schema:
    """The dataset's schema with what tells `datasets` that `image` is an image."""
    from datasets import Features, Image

    features = Features.from_arrow_schema(DATASET)
    features["image"] = Image()
    return features.arrow_schema
