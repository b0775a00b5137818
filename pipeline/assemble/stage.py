"""Stage assemble."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.assemble.card import write_card
from pipeline.store import Failures, read_rows, sha256_text, write_bytes, write_json
from pipeline.workspace import Progress, Workspace
from schemas.rows import CLASS_NONE, DATASET, VOTE
from schemas.taxonomy import Taxonomy

__all__ = ["BENCH_FIELDS", "run"]

BENCH_FIELDS = ("id", "image", "query", "type", "category", "subcategory", "image_safe", "image_safety_label")
ROWS_PER_SHARD = 1000
ID_BITS = 53  # what every JSON reader holds exactly
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
    `holisafe_bench.json` and `images/` in HoliSafe's format; `README.md`, the card; `failures.parquet`
    stands beside as `meta/failures.parquet` so that no data loader takes it for rows.
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
    for pair in sorted(pairs, key=lambda p: p["pair_id"]):
        row_id = int(pair["pair_id"], 16) >> (256 - ID_BITS)
        if row_id in ids:
            failures.add(pair["pair_id"], pair["scene"], "id taken", f"by {ids[row_id]}")
            continue
        ids[row_id] = pair["pair_id"]
        rows.append(_row(row_id, pair, sources, workspace))
    progress.start("assemble", len(rows))
    for row in _write_shards(rows, sources, out):
        name = row["image"]["path"]
        target = out / "images" / name
        if not target.exists():
            write_bytes(target, sources.images[row["image_id"]]["bytes"])
        progress.advance()
    bench = [{f: row["image"]["path"] if f == "image" else row[f] for f in BENCH_FIELDS} for row in rows]
    write_json(out / "holisafe_bench.json", sorted(bench, key=lambda r: r["id"]))
    write_card(out / "README.md", rows, workspace)
    failures.write(out / "meta")


def _load(workspace: Workspace) -> _Sources:
    by_pair: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for stage in ("label_images", "label_pairs"):
        for vote in read_rows(workspace.stage_dir(stage) / "votes.parquet"):
            by_pair[vote["item_id"]].append({field.name: vote[field.name] for field in VOTE})
    return _Sources(
        {r["image_id"]: r for r in read_rows(workspace.stage_dir("curate") / "images.parquet")},
        {r["image_id"]: r for r in read_rows(workspace.stage_dir("label_images") / "labels.parquet")},
        {r["pair_id"]: r for r in read_rows(workspace.stage_dir("respond") / "responses.parquet")},
        by_pair,
    )


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


def _write_shards(rows: list[dict[str, Any]], sources: _Sources, out: Path) -> Iterator[dict[str, Any]]:
    """Write a shard for each subcategory and side; a new subcategory adds files and changes none."""
    shards: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        shards[row["category"], row["subcategory"], row["split"]].append(row)
    schema = _schema()
    for (category, subcategory, split), members in sorted(shards.items()):
        for start in range(0, len(members), ROWS_PER_SHARD):
            part = members[start : start + ROWS_PER_SHARD]
            path = out / "data" / category / subcategory / f"{split}-{start // ROWS_PER_SHARD:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                for group in range(0, len(part), 100):
                    full = [
                        {k: v for k, v in row.items() if k != "split"}
                        | {"image": row["image"] | {"bytes": sources.images[row["image_id"]]["bytes"]}}
                        for row in part[group : group + 100]
                    ]
                    writer.write_table(pa.Table.from_pylist(full, schema=schema))
            yield from part


def _schema() -> pa.Schema:
    """The dataset's schema with what tells `datasets` that `image` is an image."""
    from datasets import Features, Image

    features = Features.from_arrow_schema(DATASET)
    features["image"] = Image()
    return features.arrow_schema
