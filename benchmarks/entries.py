"""What `python -m benchmarks` measures: a table of programs, their figures, and what these must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DATA", "ENTRIES", "Entry", "Metric", "Points", "at", "bound_of", "held"]

DATA = "{data}"
"""Stands in a command for the folder that is given for the entry."""

_MISSING = object()


@dataclass(frozen=True)
class Metric:
    """A figure of an entry, and the least or most that it may be.

    Attributes:
        name: what it is, in words.
        where: its place in the JSON that the entry writes.
        unit: of the figure.
        least: it must not be less; None is no bound.
        most: it must not be more; None is no bound.
        timed: whether it is a time or a rate, which another machine, or company on this one, makes worse.
            What is not is a quality, a size or a count, and should be the same anywhere.
    """

    name: str
    where: tuple[str | int, ...]
    unit: str = ""
    least: float | None = None
    most: float | None = None
    timed: bool = False

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Points:
    """A curve: the same figures at several sizes.

    Attributes:
        where: the place in the JSON of a list of figures, or of a table of them by size.
        of: what the size is a number of.
        columns: names of figures in each, with the label that they get.
        size: the name of the size in each.
    """

    where: tuple[str | int, ...]
    of: str
    columns: Mapping[str, str]
    size: str = "size"


@dataclass(frozen=True)
class Entry:
    """A program that measures.

    Attributes:
        name: what it is called on the command line and in the history.
        what: what it measures, in a sentence.
        command: what stands behind `python`; `--out FILE` is put at its end.
        metrics: the figures that are read from its JSON.
        points: a curve that is read from it, too.
        quick: what is put behind the command with `--quick`; None leaves the entry out then.
        limit_s: it is stopped after so many seconds.
    """

    name: str
    what: str
    command: tuple[str, ...]
    metrics: tuple[Metric, ...]
    points: Points | None = None
    quick: tuple[str, ...] | None = field(default=None)
    limit_s: float = 3600

    @property
    def needs_data(self) -> bool:
        """Whether it runs only where a folder is given for it."""
        return any(DATA in part for part in self.command)


def at(report: Any, where: tuple[str | int, ...]) -> Any:
    """What stands at a place of a report.

    Raises:
        KeyError: when nothing does.
    """
    found = report
    for step in where:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            raise KeyError("/".join(map(str, where))) from None
    return found


def bound_of(metric: Metric) -> str:
    """The bound of a figure as it is written in tables; empty when there is none."""
    if metric.least is not None and metric.least == metric.most:
        return f"= {metric.least:,g}"
    parts = [
        f"{sign} {value:,g}"
        for sign, value in ((">=", metric.least), ("<=", metric.most))
        if value is not None
    ]
    return ", ".join(parts)


def held(metric: Metric, value: float) -> bool:
    """Whether a figure is within its bounds; what is not a number never is."""
    least = metric.least if metric.least is not None else float("-inf")
    most = metric.most if metric.most is not None else float("inf")
    return least <= value <= most


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return ("-m", f"benchmarks.{name}", *arguments)


ENGINE = ("throughput_50ms", "throughput_0ms", "replay", "sent_again")
HARD = ("limited", "faults", "crash", "memory")

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "engine",
        "model calls against a scripted endpoint: throughput, replay, what is sent again",
        _module("engine", "--only", *ENGINE),
        (
            Metric(
                "requests at 50 ms",
                ("results", "throughput_50ms", "requests_per_s"),
                "1/s",
                least=850,
                timed=True,
            ),
            Metric("memory at 50 ms", ("results", "throughput_50ms", "peak_mb"), "MB", most=150),
            Metric(
                "requests at 0 ms",
                ("results", "throughput_0ms", "requests_per_s"),
                "1/s",
                least=1200,
                timed=True,
            ),
            Metric(
                "rows from the cache", ("results", "replay", "rows_per_s"), "1/s", least=20_000, timed=True
            ),
            Metric("sent in a rerun of 1,000", ("results", "sent_again", "rerun"), least=0, most=0),
            Metric(
                "sent where 100 are appended", ("results", "sent_again", "append_100"), least=100, most=100
            ),
            Metric(
                "sent where one template of two changed",
                ("results", "sent_again", "one_template_of_two"),
                least=500,
                most=500,
            ),
        ),
        quick=("--runs", "1"),
    ),
    Entry(
        "engine-faults",
        "model calls that are refused, fail or are killed, and 200,000 of them in one loop",
        _module("engine", "--only", *HARD),
        (
            Metric("2 % refused, 1,000 requests", ("results", "limited", "seconds"), "s", most=3, timed=True),
            Metric("wrong among faults", ("results", "faults", "wrong"), least=0, most=0),
            Metric("rows accounted for, of 2,000", ("results", "faults", "rows"), least=2000, most=2000),
            Metric("most sent again after kill -9", ("results", "crash", "sent_again_most"), most=64),
            Metric("growth of memory", ("results", "memory", "growth"), most=0.2),
        ),
    ),
    Entry(
        "dedup",
        "near-duplicates of 3,000 pictures, beside cleanvision and imagededup in environments of their own",
        _module("dedup", "--only", "peers"),
        (
            Metric("images", ("peers", "ours", "images_per_s"), "1/s", least=500, timed=True),
            Metric("times the faster peer", ("beside", "speed_ratio"), least=1, timed=True),
            Metric("recall", ("peers", "ours", "recall"), least=0.95),
            Metric("precision", ("peers", "ours", "precision"), least=0.99),
            Metric("recall over the better peer's", ("beside", "recall_over"), least=0),
        ),
    ),
    Entry(
        "images-growth",
        "near-duplicates among random hashes, a thousand to a million",
        _module("dedup", "--only", "growth"),
        (
            Metric("a million hashes", ("growth", "largest", "seconds"), "s", most=300, timed=True),
            Metric("memory of a million", ("growth", "largest", "peak_mb"), "MB", most=2000),
            Metric("exponent of time", ("growth", "exponent"), most=1.6),
            Metric("planted pairs found", ("growth", "largest", "recall"), least=0.97),
        ),
        Points(("growth", "sizes"), "hashes", {"seconds": "seconds", "peak_mb": "MB", "recall": "found"}),
        quick=("--sizes", "1000", "10000"),
    ),
    Entry(
        "votes-growth",
        "agreement of ten thousand to a million votes, with 1,000 resamples, from the CSV",
        _module("agreement", "--size", "--votes", "10000", "100000", "1000000"),
        (
            Metric("a million votes", ("largest", "seconds"), "s", most=60, timed=True),
            Metric("memory of a million", ("largest", "peak_mib"), "MiB", most=600),
        ),
        Points(("sizes",), "votes", {"seconds": "seconds", "peak_mib": "MiB"}, size="rows"),
        quick=("--votes", "1000", "10000", "--rounds", "100"),
    ),
    Entry(
        "audit",
        "the audit of 100,000 pairs with 400,000 votes, images left out",
        _module("audit"),
        (
            Metric("an audit", ("seconds",), "s", most=300, timed=True),
            Metric("memory of all processes", ("peak_mb",), "MB", most=2000),
        ),
        quick=("--pairs", "2000"),
    ),
    Entry(
        "selftest",
        "what the audit finds of planted flaws, and names where none are planted",
        _module("selftest"),
        (
            Metric("least recall of flipped labels", ("least_recall",), least=0.80),
            Metric("recall short of what features allow", ("mean_recall_short_of_ideal",), most=0.05),
            Metric("sets of 20 with a false alarm", ("sets_with_a_false_alarm",), most=1),
            Metric("a self-test", ("seconds",), "s", timed=True),
        ),
        quick=("--pairs", "1000", "--seeds", "1"),
    ),
    Entry(
        "encoder",
        "labelling by an open_clip encoder, beside a bare loop",
        _module("encoder"),
        (
            Metric("times the bare loop", ("results", "ratio"), least=0.85, timed=True),
            Metric("images", ("results", "labelled_images_per_s"), "1/s", timed=True),
        ),
        quick=("--images", "16", "--batch", "8", "--runs", "1"),
    ),
    Entry(
        "ingest",
        "stage curate on 50,000 images, without models",
        _module("ingest"),
        (
            Metric("images", ("largest", "images_per_s"), "1/s", least=150, timed=True),
            Metric("memory", ("largest", "peak_mb"), "MB", most=500),
            Metric("times the memory of 1,000", ("memory_ratio",), most=1.2),
        ),
        quick=("--counts", "64", "256"),
    ),
    Entry(
        "assemble",
        "the dataset of 6,800 images and 15,000 pairs, at two sizes of images",
        _module("assemble"),
        (
            Metric("seconds", ("largest", "seconds"), "s", timed=True),
            Metric("memory", ("largest", "peak_mb"), "MB", most=500),
            Metric("times the memory with images half as large", ("memory_ratio",), most=1.2),
        ),
        quick=("--images", "100", "--pairs", "200"),
    ),
    Entry(
        "build-growth",
        "whole builds of about 2,000, 6,000, 20,000 and 100,000 pairs by the rehearsal profile",
        _module("growth"),
        (
            Metric(
                "time for a pair, times that of the smallest build",
                ("per_pair_ratio",),
                most=1.15,
                timed=True,
            ),
            Metric("memory of all processes", ("largest", "peak_mb"), "MB", most=2000),
            Metric("memory of the largest process", ("largest", "peak_one_mb"), "MB"),
            Metric("time outside of stages", ("largest", "overhead"), most=0.10, timed=True),
            Metric("memory, times that of the smallest build", ("memory_ratio",)),
            Metric("the largest build", ("hours",), "h", most=3, timed=True),
        ),
        Points(
            ("sizes",),
            "pairs",
            {
                "seconds": "seconds",
                "ms_per_pair": "ms a pair",
                "peak_one_mb": "MB of one process",
                "peak_mb": "MB of all",
                "overhead": "outside of stages",
            },
            size="pairs",
        ),
        quick=("--scale", "0.01", "0.02"),
        limit_s=4 * 3600,
    ),
    Entry(
        "rehearsal",
        "a build at the paper's size, killed ten times, and grown by a class",
        _module("rehearsal"),
        (
            Metric("a build", ("minutes",), "min", most=25, timed=True),
            Metric("memory of the largest process", ("peak_gb",), "GB", most=1.5),
            Metric("cells more than 2 % off", ("cells_off",), most=0),
            Metric("files that differ after kills", ("files_that_differ",), most=0),
            Metric("files that a new class changed", ("files_moved",), most=0),
            Metric("calls for a class beyond its own", ("calls_beyond_own",), least=0, most=0),
            Metric("time for a class, share of a build", ("growth_share",), most=0.1, timed=True),
        ),
        quick=("--scale", "0.02", "--kills", "1"),
        limit_s=7200,
    ),
    Entry(
        "refusal",
        "judges of refusals on completions that people labelled (a folder of XSTest's)",
        _module("refusal", DATA),
        (
            Metric("F1 on llama2orig", ("figures", "llama2orig", "refusal", "f1"), least=0.95),
            Metric("F1 on mistralinstruct", ("figures", "mistralinstruct", "refusal", "f1"), least=0.80),
            Metric("responses", ("speeds", "refusal"), "1/s", least=1000, timed=True),
        ),
        quick=(),
    ),
    Entry(
        "surface",
        "how far the surface of pictures gives their label away (a dataset)",
        _module("surface", DATA),
        (Metric("AUC of all statistics", ("tables", "all together", "auc"), most=0.60),),
        quick=(),
    ),
)
