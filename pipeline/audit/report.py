"""The report as one self-contained HTML file: no network, no script from elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import Any

from schemas.taxonomy import PAIR_TYPES

__all__ = ["Report", "render"]

TYPE_MEANINGS = {
    "SSS": "safe image, safe text, safe together: answer",
    "SSU": "safe image, safe text, unsafe together: refuse",
    "SUU": "safe image, unsafe text: refuse",
    "USU": "unsafe image, safe text: refuse, or answer protectively",
    "UUU": "unsafe image, unsafe text: refuse",
}


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        metrics: as in `metrics.json`.
        classes: class names in the taxonomy's order.
        gallery: rows by type, each with a `picture` as a data URI.
        failures: rows of the failures tables.
        tier: of the build.
        policy_version: of the taxonomy.
        category_of: category by class name.
    """

    metrics: dict[str, Any]
    classes: list[str]
    gallery: dict[str, list[dict[str, Any]]]
    failures: list[dict[str, str]]
    tier: str
    policy_version: str
    category_of: dict[str, str]


def render(report: Report) -> str:
    """The page. Everything that came from a row is escaped, so a script in a caption is shown, not run."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        resources.files("pipeline.audit").joinpath("report.html").read_text("utf-8")
    )
    cells = report.metrics["cells"]
    by_class = {(c["class"], c["type"]): c for c in cells}
    shown = [name for name in report.classes if (name, "SSS") in by_class]
    problems = [f for f in report.failures if f["reason"] != "surplus not needed"]
    return template.render(
        report=report,
        metrics=report.metrics,
        types=PAIR_TYPES,
        variety=sorted(report.metrics["variety"], key=lambda v: (-(v["near"] or 0), -(v["template"] or 0))),
        probes=sorted(report.metrics["probes"], key=lambda p: -max(p["plain"] or 0, p["grouped"] or 0)),
        meanings=TYPE_MEANINGS,
        grid=[(report.category_of[n], n, [by_class[n, t] for t in PAIR_TYPES]) for n in shown],
        largest=max((c["have"] for c in cells), default=0) or 1,
        most=max(report.metrics["by_type"].values(), default=0) or 1,
        failures=problems[:400],
        failure_count=len(problems),
        by_reason=Counter((f["stage"], f["reason"]) for f in problems).most_common(),
    )
