"""Stage assemble."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.assemble.card import write_card
from pipeline.assemble.croissant import write_croissant
from pipeline.assemble.figures import figures
from pipeline.parts import Parts
from pipeline.runner import last_output
from pipeline.store import (
    Failures,
    read_rows,
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
from schemas.taxonomy import Taxonomy

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
class _Sources:
    images: dict[str, dict[str, Any]]
    image_labels: dict[str, dict[str, Any]]
    responses: dict[str, dict[str, Any]]
    votes: dict[str, list[dict[str, Any]]]


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
    sources = _load(workspace)
    rows: list[dict[str, Any]] = []
    pairs = [
        p
        for p in read_rows(workspace.stage_dir("label_pairs") / "pairs.parquet")
        if p["pair_id"] in sources.responses
    ]
    ids: dict[int, str] = {}
    paths: dict[str, str] = {}
    for pair in sorted(pairs, key=lambda p: p["pair_id"]):
        row_id = row_id_of(pair["pair_id"])
        if row_id in ids:
            failures.add(pair["pair_id"], pair["scene"], "id taken", f"by {ids[row_id]}")
            continue
        row = _row(row_id, pair, sources, workspace)
        path = row["image"]["path"]
        if paths.setdefault(path, row["image_id"]) != row["image_id"]:
            failures.add(pair["pair_id"], pair["scene"], "image path taken", f"{path} by {paths[path]}")
            continue
        ids[row_id] = pair["pair_id"]
        rows.append(row)
    left_out = {
        row["image"]["path"]: {"path": row["image"]["path"]} | {f: row[f] for f in LEFT_OUT_FIELDS}
        for row in rows
        if not _released(row, workspace)
    }
    lines = [json.dumps(left_out[name], ensure_ascii=False) + "\n" for name in sorted(left_out)]
    write_text(out / "meta" / "images_left_out.jsonl", "".join(lines))
    former = last_output(workspace, STAGE)
    images = _write_images(rows, former, workspace, out, progress)
    _write_shards(rows, images, former, workspace, out, progress)
    bench = [{f: row["image"]["path"] if f == "image" else row[f] for f in BENCH_FIELDS} for row in rows]
    write_json(out / "holisafe_bench.json", sorted(bench, key=lambda r: r["id"]))
    held = {told["image_id"] for told in left_out.values()}
    counted = figures(rows, sources.images, sources.votes, held, workspace)
    write_card(out / "README.md", rows, counted, workspace)
    write_croissant(out, counted)
    failures.write(out / "meta")


def _load(workspace: Workspace) -> _Sources:
    by_item: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for stage in ("label_images", "label_pairs"):
        columns = ["item_id", *(field.name for field in VOTE)]
        for vote in read_rows(workspace.stage_dir(stage) / "votes.parquet", columns):
            # A vote on the class hangs on all classes: a new one would change the rows of every other.
            if vote["question"].endswith("_class"):
                continue
            by_item[vote.pop("item_id")].append(vote)
    return _Sources(
        {r["image_id"]: r for r in read_rows(_images(workspace), IMAGE_WORDS)},
        {r["image_id"]: r for r in read_rows(workspace.stage_dir("label_images") / "labels.parquet")},
        {r["pair_id"]: r for r in read_rows(workspace.stage_dir("respond") / "responses.parquet")},
        by_item,
    )


def _images(workspace: Workspace) -> Path:
    return workspace.stage_dir("curate") / "images.parquet"


def _released(row: dict[str, Any], workspace: Workspace) -> bool:
    """Whether the row's image may go out."""
    return workspace.params.assemble.images == "all" or row["redistributable"] == "yes"


def image_path(image_id: str, class_name: str, taxonomy: Taxonomy) -> str:
    """Where HoliSafe's layout puts an image, below `images/`; the number comes from the image itself."""
    category = taxonomy.by_name(class_name).category
    folder = category if category == class_name else f"{category}/{class_name}"
    return f"{folder}/{class_name}_{int(image_id[:8], 16)}.jpg"


def _row(row_id: int, pair: dict[str, Any], sources: _Sources, workspace: Workspace) -> dict[str, Any]:
    taxonomy = workspace.taxonomy
    image = sources.images[pair["image_id"]]
    label = sources.image_labels[pair["image_id"]]
    response = sources.responses[pair["pair_id"]]
    folder = image["intended_class"] if label["image_class"] == CLASS_NONE else label["image_class"]
    # HoliSafe: a row's category follows its image's folder, in SUU rows the harm in the text.
    name = pair["harm_class"] if pair["type"] == "SUU" else folder
    info = taxonomy.by_name(name)
    votes = [
        vote
        for item in (pair["image_id"], sha256_text(pair["query"]), pair["pair_id"])
        for vote in sources.votes[item]
    ]
    return {
        "id": row_id,
        "image": {"bytes": None, "path": image_path(pair["image_id"], folder, taxonomy)},
        "query": pair["query"],
        "type": pair["type"],
        "category": info.category,
        "subcategory": info.name,
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
    rows: list[dict[str, Any]], former: Mapping[str, str], workspace: Workspace, out: Path, progress: Progress
) -> dict[str, str]:
    """Write each image that may go out as a file of its own, in one pass over the table of images.

    Returns:
        Their SHA-256 by path.
    """
    paths = {row["image_id"]: row["image"]["path"] for row in rows if _released(row, workspace)}
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
    rows: list[dict[str, Any]],
    images: Mapping[str, str],
    former: Mapping[str, str],
    workspace: Workspace,
    out: Path,
    progress: Progress,
) -> None:
    """Write a shard for each subcategory and side; a new subcategory adds files and changes none."""
    shards: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        shards[row["category"], row["subcategory"], row["split"]].append(row)
    schema = _schema()
    parts = Parts(workspace, STAGE, APART)
    # Of each shard what it was made from, and what it was then.
    index = workspace.state / "parts" / f"{STAGE}.json"
    made: dict[str, list[str]] = json.loads(index.read_text()) if index.exists() else {}
    known: dict[str, list[str]] = {}
    progress.start("rows", len(rows))
    for (category, subcategory, split), members in sorted(shards.items()):
        for start in range(0, len(members), ROWS_PER_SHARD):
            part = members[start : start + ROWS_PER_SHARD]
            name = f"data/{category}/{subcategory}/{split}-{start // ROWS_PER_SHARD:05d}.parquet"
            key = parts.key(str(schema), [[row, images.get(row["image"]["path"])] for row in part])
            if name in former and made.get(name) == [key, former[name]]:
                take_over(workspace.stage_dir(STAGE) / name, out / name)
                known[name] = made[name]
            else:
                full = (_with_image(row, workspace, out) for row in part)
                write_rows(out / name, schema, full, repeated=["image.bytes"])
                known[name] = [key, sha256_file(out / name)]
            progress.advance(len(part))
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
