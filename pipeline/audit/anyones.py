"""Audit of a dataset that anybody made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.anyset import open_anyset
from pipeline.audit.findings import findings
from pipeline.audit.report import Cards, Report, render
from pipeline.store import write_json, write_text
from pipeline.workspace import Progress

__all__ = ["audit_anyset"]


def audit_anyset(
    place: str, out: Path, progress: Progress, *, against: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """Write `index.html` and `metrics.json` (keys in docs/audit.md) to `out`, which is made.

    Args:
        place: the dataset, as `open_anyset` takes it.
        out: a folder; what it holds of an earlier audit is replaced.
        progress: told of images and of what is looked for.
        against: another dataset, whose copies in this one are looked for.
        seed: of folds and resamples.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: when nothing in a dataset can be audited.
    """
    found = open_anyset(place)
    other = None if against is None else open_anyset(against)
    metrics = findings(found, progress, against=other, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", metrics)
    name = Path(place).resolve().name if Path(place).exists() else place
    write_text(out / "index.html", render(Report(f"Audit of {name}", metrics, Cards.of(found, metrics))))
    return metrics
