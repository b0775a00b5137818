"""What responses an endpoint writes: how many pass the checks, and what the others fail by.

    python -m benchmarks.responses --endpoint local [--workspace .] [--pairs 40] [--work DIR] [--out F]

Pairs are taken from the query scenes, the seed images and the taxonomy's drawings, over all classes and
expected answers; stage respond runs on them in a workspace of its own, DIR, where a stopped run goes on; by
default it is thrown away. F gets every response beside its pair, to be read: whether one is good no rule can
say.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from benchmarks.surroundings import environment
from pipeline.audit.variety import distinct
from pipeline.engine import open_cache
from pipeline.respond import run
from pipeline.respond.prompts import load_writer_prompts
from pipeline.store import canonical_json, read_rows, sha256_text, write_json, write_rows
from pipeline.synthesize.matching import KnownImage, fill
from pipeline.workspace import Silent, Workspace
from schemas.queries import LatentScene, NeutralScene
from schemas.rows import IMAGES, PAIRS

PACKAGES = ("openai", "xllamacpp")
SHARES = {"refuse": 4, "support": 2, "safe_complete": 2, "comply": 2}
"""How pairs are divided among expected answers; of ten."""


def images(workspace: Workspace) -> list[tuple[KnownImage, str]]:
    """The seed images and the drawings, with the text in them."""
    found = []
    for line in (workspace.root / "data" / "seed" / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = sha256_text(row["file_name"])
        words = (row["subject"], row["caption"], tuple(row["objects"]))
        found.append((KnownImage(name, row["safe"], row["class"], "train", *words), ""))
    for info in workspace.taxonomy.classes():
        for drawing in info.spec.generation.drawings:
            words = (drawing.subject, drawing.caption, tuple(drawing.objects))
            known = KnownImage(sha256_text(drawing.id), drawing.safe, info.name, "train", *words)
            found.append((known, "\n".join(drawing.text)))
    return found


def candidates(workspace: Workspace, known: list[KnownImage]) -> Iterator[dict[str, Any]]:
    """For every scene and every way it is used one pair."""
    for info in workspace.taxonomy.classes():
        for scene in workspace.scenes[info.name].all():
            if isinstance(scene, LatentScene):
                uses = [("SSS", "comply", True, scene.other), ("SSU", scene.expected, True, scene.image)]
            elif isinstance(scene, NeutralScene):
                uses = [
                    ("SSS", "comply", True, scene.image),
                    ("USU", scene.on_unsafe, False, scene.unsafe_image),
                ]
            else:
                uses = [
                    ("SUU", scene.expected, True, scene.image),
                    ("UUU", scene.expected, False, scene.unsafe_image),
                ]
            for kind, expected, safe, words in uses:
                fitting = [i for i in known if i.safe == safe and i.suits(words)]
                fitting = [i for i in fitting if words or i.class_name == info.name]
                if fitting:
                    image = min(fitting, key=lambda i: sha256_text(f"{scene.id}{i.image_id}"))
                    query = fill(scene.query, image.subject)
                    yield {
                        "pair_id": sha256_text(f"{image.image_id}{query}"),
                        "image_id": image.image_id,
                        "query": query,
                        "scene": scene.id,
                        "harm_class": info.name,
                        "type": kind,
                        "expected": expected,
                    }


def chosen(found: list[dict[str, Any]], wanted: int) -> list[dict[str, Any]]:
    """Pairs of all expected answers; types and classes take turns in each."""
    picked = []
    for expected, share in SHARES.items():
        used: Counter[str] = Counter()
        left = sorted((p for p in found if p["expected"] == expected), key=lambda p: p["pair_id"])
        for _ in range(round(wanted * share / sum(SHARES.values()))):
            if not left:
                break
            best = min(left, key=lambda p: (used[p["type"]], used[p["harm_class"]], p["pair_id"]))
            used.update([best["type"], best["harm_class"]])
            left.remove(best)
            picked.append(best)
    return picked


def prepared(workspace: Workspace, root: Path, endpoint: str, pairs: int) -> Workspace:
    """A workspace whose label_pairs has kept the pairs, and whose writer is the endpoint."""
    for name in ("schemas", "prompts"):
        shutil.copytree(workspace.root / name, root / name, dirs_exist_ok=True)
    params = yaml.safe_load((workspace.root / "params.yaml").read_text())
    params["respond"]["writer"] = endpoint
    params["collect"]["sources"][0]["path"] = str((workspace.root / "data" / "seed").resolve())
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    made = Workspace(root)
    known = images(workspace)
    blank: dict[str, Any] = {f.name: [] if pa.types.is_list(f.type) else None for f in IMAGES}
    rows = (
        blank
        | {
            "image_id": image.image_id,
            "caption": image.caption,
            "subject": image.subject,
            "objects": list(image.objects),
            "ocr_text": text,
            "intended_class": image.class_name,
        }
        for image, text in known
    )
    write_rows(made.stage_dir("curate") / "images.parquet", IMAGES, rows)
    picked = chosen(list(candidates(workspace, [image for image, _ in known])), pairs)
    empty = {f.name: None for f in PAIRS}
    write_rows(made.stage_dir("label_pairs") / "pairs.parquet", PAIRS, (empty | p for p in picked))
    return made


def main() -> None:
    """Have them written, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.work or Path(folder)
        workspace = prepared(Workspace(args.workspace), root, args.endpoint, args.pairs)
        out = root / "out"
        began = time.monotonic()
        run(workspace, out, Silent())
        took = time.monotonic() - began
        pairs = list(read_rows(workspace.stage_dir("label_pairs") / "pairs.parquet"))
        table = workspace.stage_dir("curate") / "images.parquet"
        captions = {
            r["image_id"]: f"{r['caption']} [{r['ocr_text']}]"
            for r in read_rows(table, ["image_id", "caption", "ocr_text"])
        }
        responses = {r["pair_id"]: r for r in read_rows(out / "responses.parquet")}
        failures = {r["item_id"]: r for r in read_rows(out / "failures.parquet")}
        with open_cache(workspace.calls) as cache:
            records = list(cache.records())
        prompts = load_writer_prompts(workspace.root / "prompts" / "respond")
    texts = [r["response"] for r in responses.values()]
    figures: dict[str, Any] = {
        "environment": environment(PACKAGES),
        "model": workspace.params.endpoints[args.endpoint].model,
        "prompt_versions": {name: prompt.version for name, prompt in prompts.items()},
        "pairs": len(pairs),
        "written": len(texts),
        "by_expected": {
            name: f"{sum(p['pair_id'] in responses for p in pairs if p['expected'] == name)} of {n}"
            for name, n in Counter(p["expected"] for p in pairs).items()
        },
        "failed": dict(Counter(row["reason"] for row in failures.values())),
        "calls": len(records),
        "words": statistics.median(len(text.split()) for text in texts) if texts else 0,
        "distinct_2": distinct(texts, 2),
        "seconds_each": round(took / max(1, len(records)), 1),
    }
    rows = [
        {name: p[name] for name in ("pair_id", "harm_class", "type", "expected", "query")}
        | {"picture": captions[p["image_id"]]}
        | (
            {"response": r["response"], "rationale": json.loads(r["rationale"] or "null")}
            if (r := responses.get(p["pair_id"]))
            else {"failed": failures[p["pair_id"]]["reason"], "raw": failures[p["pair_id"]]["detail"]}
        )
        for p in pairs
    ]
    tries = [
        {
            "question": json.loads(record.request_json)["messages"][-1]["content"],
            "messages": len(json.loads(record.request_json)["messages"]),
            "answer": record.response_text,
        }
        for record in records
    ]
    if args.out:
        write_json(args.out, {"figures": figures, "responses": rows, "calls": tries})
    for name, value in figures.items():
        print(f"{name}: {value if isinstance(value, str) else canonical_json(value)}")


if __name__ == "__main__":
    main()
