"""Figures as people see them: on the terminal and at Prefect."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from schemas.taxonomy import PAIR_TYPES

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

__all__ = ["pairs_by_category", "percent_cell"]


def percent_cell(value: float | None, low: float | None, high: float | None) -> str:
    """A share in percent and its interval, narrow enough for three of them in 80 columns."""
    shown = "–" if value is None else f"{100 * value:.1f}"
    return shown if low is None or high is None else f"{shown} {100 * low:.1f}–{100 * high:.1f}"


def pairs_by_category(workspace: Workspace) -> dict[str, list[int]]:
    """The pairs of a built dataset by category, and of `all`: a count for each type, and their sum."""
    metrics = json.loads((workspace.stage_dir("audit") / "metrics.json").read_text())
    have: Counter[tuple[str, str]] = Counter()
    for cell in metrics["cells"]:
        have[cell["category"], cell["type"]] += cell["have"]
    rows = {name: [have[name, kind] for kind in PAIR_TYPES] for name in workspace.taxonomy.categories}
    rows = {name: [*counts, sum(counts)] for name, counts in rows.items() if sum(counts)}
    return rows | {"all": [*(metrics["by_type"][kind] for kind in PAIR_TYPES), metrics["rows"]]}
