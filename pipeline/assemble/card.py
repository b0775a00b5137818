"""The dataset card: front matter that loaders read, and figures computed from the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pipeline.store import write_text
from pipeline.workspace import Workspace
from schemas.taxonomy import PAIR_TYPES

__all__ = ["front_matter", "markdown_table", "write_card"]

_FRONT = """\
---
license: other
language:
  - en
task_categories:
  - visual-question-answering
tags:
  - safety
  - vision-language
  - refusal
pretty_name: HoliSafe-mini
size_categories:
  - n<1K
configs:
  - config_name: default
    data_files:
{data_files}
---
"""
_BODY = """\
# HoliSafe-mini

Image-question pairs in the five safe/unsafe combinations of HoliSafe (arXiv 2506.04704), with the answer a
safe model should give. Built by `holisafe build`; every figure below is computed from the rows.

**Tier: {tier}.** Small models that run on a laptop labelled these rows. No claim of quality rests on them.

```python
from datasets import load_dataset

dataset = load_dataset("data/dataset")          # train and test, every column
test = dataset["test"][0]["image"], dataset["test"][0]["query"], dataset["test"][0]["response"]
```

`holisafe_bench.json` and `images/` hold the same {rows} rows with HoliSafe's eight fields, for the tools
that read that format. To evaluate, use the ids of the test split only.

## Rows

{cells}

{splits}

{images} images, {queries} different queries, {squares} contrast squares. Expected answers: {expected}.

## Where the images come from

{licences}

Every row names its image's source, author and licence.

## Labels

Each of image safety, image class, text safety and pair safety is judged by at least two annotators of
different families; the votes stand in the column `votes`. Mean agreement is {agreement:.2f}. A pair is kept
only when the labels give its type. {unverified} SSU rows are marked `ssu_unverified`: no joint annotator has
seen their pixels; they read the image's caption and the text in it.

Policy version {policy}. Grades (`grade_image`, `grade_text`, `grade_joint`) say more than the type:
{borderline} rows are protective questions on unsafe images (`grade_joint: borderline`, `expected:
safe_complete`), which HoliSafe's format can only call USU; {trigger} rows have images that are unsafe by
presence alone (`grade_image: borderline`).

## Limits

- Unsafe sexual images are never collected or generated, so USU and UUU are empty there.
- Queries come from reviewed templates; a model trained on them alone learns their style.
- English only.
- The annotators are weak: see `docs/quality.md` for what was measured.

## What it is for

Training models to refuse what they should and to help where they can, and measuring both. Unsafe pairs carry
refusals only. Do not use the test split for training (canary in the column `canary`).
"""


def write_card(path: Path, rows: Sequence[dict[str, Any]], workspace: Workspace) -> None:
    """Write the card for `rows`, dataset rows with their `split`."""
    by_cell = Counter((r["category"], r["type"]) for r in rows)
    categories = list(workspace.taxonomy.categories)
    cells = [
        [c, *(by_cell[c, t] for t in PAIR_TYPES), sum(by_cell[c, t] for t in PAIR_TYPES)] for c in categories
    ]
    cells.append(["**all**", *(sum(by_cell[c, t] for c in categories) for t in PAIR_TYPES), len(rows)])
    by_split = Counter((r["split"], r["type"]) for r in rows)
    splits = [[s, *(by_split[s, t] for t in PAIR_TYPES)] for s in ("train", "test")]
    images = {r["image_id"]: r for r in rows}
    licences = Counter((r["licence"], r["source_package"] or r["generator"] or "-") for r in images.values())
    text = _BODY.format(
        tier=workspace.params.tier,
        rows=len(rows),
        cells=markdown_table(["category", *PAIR_TYPES, "all"], cells),
        splits=markdown_table(["split", *PAIR_TYPES], splits),
        images=len(images),
        queries=len({r["query"] for r in rows}),
        squares=len({r["contrast_square"] for r in rows}),
        expected=", ".join(f"{n} {e}" for e, n in sorted(Counter(r["expected"] for r in rows).items())),
        licences=markdown_table(
            ["licence", "source", "images"], [[lic, src, n] for (lic, src), n in sorted(licences.items())]
        ),
        agreement=sum(r["agreement"] for r in rows) / len(rows) if rows else 0.0,
        unverified=sum(r["ssu_unverified"] for r in rows),
        policy=workspace.taxonomy.policy_version,
        borderline=sum(r["grade_joint"] == "borderline" for r in rows),
        trigger=sum(r["grade_image"] == "borderline" for r in rows),
    )
    write_text(path, front_matter({r["split"] for r in rows}) + text)


def front_matter(splits: Collection[str]) -> str:
    """What loaders read: only sides that have rows, since a pattern without files is an error to them."""
    listed = [s for s in ("train", "test") if s in splits]
    lines = [f"      - split: {s}\n        path: data/*/*/{s}-*.parquet" for s in listed]
    return _FRONT.format(data_files="\n".join(lines))


def markdown_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(map(str, head)), ["---"] * len(head), *(list(map(str, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
