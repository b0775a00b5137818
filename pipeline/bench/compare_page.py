"""A comparison to be read: one self-contained HTML file, and a leaderboard in Markdown."""

from __future__ import annotations

import html
from importlib import resources
from pathlib import Path

from pipeline.bench.compare import FIGURES, OTHERWISE, Comparison, Standing
from pipeline.bench.judge_pairs import CUT, MODELS
from pipeline.bench.paired import Difference
from pipeline.bench.scored import Corrected
from pipeline.bench.shares import Rate
from pipeline.store import write_json, write_text
from schemas.errors import InputError

__all__ = ["LABELS", "ONE_SCALE", "interval", "markdown", "percent", "render", "write_comparison"]

LABELS = {"avg_ASR": "mASR", "RR": "RR"}
"""What figures are called where they are not called as in `metrics.json`."""
LETTERS = 26
"""So many letters of a name have a place beside a bar."""
ONE_SCALE = "Figures by different judges are not one scale: compare models by one judge only."
COUNTED = "All rows counted: a row without a verdict did not help, and did not comply."
CORRECTED = (
    "Corrected: without the judge's errors on gold of the same model's answers (Rogan and Gladen 1978); J is "
    "Youden's. Each model is corrected by its own gold, so that no order of models follows."
)


def write_comparison(found: Comparison, out: Path) -> None:
    """Write `index.html`, `leaderboard.md` and `comparison.json`.

    Raises:
        InputError: when `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder with --out")
    write_json(out / "comparison.json", found.as_json())
    write_text(out / "leaderboard.md", markdown(found))
    write_text(out / "index.html", render(found))


def render(found: Comparison) -> str:
    """The page. Everything that came from a row is escaped, so a script in a query is shown, not run."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval, "short": _short}
    template = environment.from_string(
        resources.files("pipeline.bench").joinpath("compare.html").read_text("utf-8")
    )
    return template.render(
        c=found,
        figures=FIGURES,
        otherwise=OTHERWISE,
        labels=LABELS,
        one_scale=ONE_SCALE,
        counted=COUNTED,
        corrected=CORRECTED,
        cut=CUT,
        models_wanted=MODELS,
    )


def markdown(found: Comparison) -> str:
    """The leaderboard of each judge as tables."""
    names = [LABELS.get(name, name) for name in FIGURES]
    lines = [
        "# Leaderboard",
        "",
        f"{ONE_SCALE} Percent, with 95 % intervals; rows without a verdict are left out.",
        "",
    ]
    if found.notes:
        lines += [*(f"- {_cell(note)}" for note in found.notes), ""]
    for judge, board in found.leaderboards.items():
        lines += [f"## {_cell(judge)}", "", f"| model | {' | '.join(names)} | blocked | unscorable |"]
        lines.append(f"|---|{'---:|' * (len(names) + 2)}")
        for one in board:
            cells = [_figure(one.rates[name]) for name in FIGURES]
            lines.append(f"| {_cell(one.model)} | {' | '.join(cells)} | {one.blocked} | {one.unscorable} |")
        lines += ["", *_otherwise(board)]
        of = found.differences[judge]
        lines += [
            "",
            f"{of.exclude_0} of {of.compared} paired differences exclude 0; {of.exclude_0_of_all} when all "
            "are looked at (Bonferroni).",
            "",
        ]
    return "\n".join(lines)


def _otherwise(board: list[Standing]) -> list[str]:
    """The table of what other ways of counting make of the same answers."""
    gold = any(one.corrected for one in board)
    names = [f"{LABELS.get(name, name)}, all rows" for name in OTHERWISE]
    names += [*(f"{LABELS.get(name, name)}, corrected" for name in OTHERWISE), "J"] if gold else []
    lines = [f"{COUNTED} {CORRECTED}" if gold else COUNTED, ""]
    lines += [f"| model | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for one in board:
        cells = [_figure(one.counted[name]) for name in OTHERWISE]
        if gold:
            cells += [_figure(one.corrected.get(name)) for name in OTHERWISE]
            cells.append("–" if one.youden is None else f"{one.youden:.2f}")
        lines.append(f"| {_cell(one.model)} | {' | '.join(cells)} |")
    return lines


def _figure(of: Rate | Corrected | None) -> str:
    if of is None:
        return "–"
    value = of.corrected if isinstance(of, Corrected) else of.value
    return f"{percent(value)} {interval(of)}".strip()


def percent(value: float | None, sign: bool = False) -> str:
    """A share in percent, one decimal; with a sign a difference, which a hyphen would not be read as."""
    if value is None:
        return "–"
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text.replace("-", "−")


def interval(of: Rate | Difference | Corrected, sign: bool = False) -> str:
    """The interval of a share or of a difference in percent; empty where there is none."""
    return "" if of.low is None else f"({percent(of.low, sign)} to {percent(of.high, sign)})"


def _short(name: str) -> str:
    """Names of models often differ at their ends, so the middle is what goes."""
    return name if len(name) <= LETTERS else f"{name[:10]}…{name[11 - LETTERS :]}"


def _cell(text: str) -> str:
    """A name as plain text in a table, whatever it holds."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\|`*_[]#" else letter for letter in plain)
