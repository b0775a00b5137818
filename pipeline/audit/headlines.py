"""What a reader of the report should look at first, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Headline", "headlines"]

Level = Literal["wrong", "look", "fine"]


@dataclass(frozen=True, slots=True)
class Headline:
    """One sentence.

    Attributes:
        level: `wrong` is to be mended, `look` is to be judged, `fine` was looked for and not found.
        text: the sentence.
        section: the part of the report that says more.
    """

    level: Level
    text: str
    section: str

    @property
    def word(self) -> str:
        """What a reader is asked to do about it."""
        return {"wrong": "mend", "look": "judge", "fine": "fine"}[self.level]


def headlines(metrics: Mapping[str, Any]) -> list[Headline]:
    """In the order of the report, what is wrong first."""
    found: list[Headline] = []

    def say(bad: Any, level: Level, text: str, fine: str, section: str) -> None:
        found.append(Headline(level, text, section) if bad else Headline("fine", fine, section))

    problems = metrics["problems"]
    say(
        problems["n"],
        "wrong" if problems["rows_left_out"] else "look",
        f"{_count(problems['n'], 'problem')} with rows; {problems['rows_left_out']} could not be audited.",
        "Every row could be read.",
        "problems",
    )
    say(
        metrics["balance"]["empty_cells"],
        "look",
        f"{_count(metrics['balance']['empty_cells'], 'cell')} of class and type without a row.",
        "Every cell of class and type has rows.",
        "cells",
    )
    named = [p for p in metrics["probes"] if p["named"]]
    say(
        named,
        "wrong",
        f"{_count(len(named), 'giveaway')}{_worst(named)}.",
        "No label can be told from what should say nothing about it."
        if any(p["grouped"] is not None for p in metrics["probes"])
        else "Too few rows of each kind to look for giveaways.",
        "probes",
    )
    copies = metrics["copies"]
    crossing = (copies["images"]["across"] or 0) + (copies["queries"]["across"] or 0)
    if copies["queries"]["across"] is not None:
        say(
            crossing,
            "wrong",
            f"{_count(copies['images']['across'] or 0, 'image')} and "
            f"{_count(copies['queries']['across'], 'test row')} have a copy on the other side of the split.",
            "No image and no query has a copy on the other side of the split.",
            "copies",
        )
    if copies["against"]:
        shared = (copies["images"]["against"] or 0) + (copies["queries"]["against"] or 0)
        say(
            shared,
            "wrong",
            f"{_count(copies['images']['against'] or 0, 'image')} and "
            f"{_count(copies['queries']['against'] or 0, 'row')} have a copy in {copies['against']}.",
            f"Nothing has a copy in {copies['against']}.",
            "copies",
        )
    say(
        copies["queries"]["whole_rows"],
        "wrong",
        f"{_count(copies['queries']['whole_rows'], 'row')} with the image and the query of another row.",
        "No row stands twice.",
        "copies",
    )
    contrast = metrics["contrast"]
    alone = {kind: one["rows"] - one["same_query"] for kind, one in contrast.items()}
    say(
        any(alone.values()),
        "look",
        f"{alone['SSU']} of {contrast['SSU']['rows']} SSU and {alone['USU']} of {contrast['USU']['rows']} "
        "USU rows lack an SSS row with their query.",
        "Every SSU and USU row has an SSS row with its query.",
        "contrast",
    )
    over = metrics["over_refusal"]
    say(
        over["rows"],
        "look",
        f"{over['rows']} of {over['expects_refusal']} rows that expect a refusal ask for protection.",
        "No row that expects a refusal reads like a question of protection.",
        "over-refusal",
    )
    if metrics.get("noise"):
        rates = {q: n for q, n in metrics["noise"].items() if n["rate"] is not None}
        worst = max(rates, key=lambda q: rates[q]["rate"], default="")
        suspects = len(metrics["suspects"])
        rate = f" An estimated {rates[worst]['rate']:.1%} of the labels {worst} are wrong." if worst else ""
        say(
            suspects,
            "look",
            f"{_count(suspects, 'label')} to doubt.{rate}",
            f"No label to doubt.{rate}",
            "noise",
        )
    doubted = [
        f"{f['family']} {f['finding']} ({question})"
        for question, told in metrics.get("reliability", {}).items()
        for f in told["families"]
        if f["finding"]
    ]
    if metrics.get("reliability"):
        say(doubted, "wrong", f"Annotators: {'; '.join(doubted)}.", "No annotator stands out.", "annotators")
    origin = metrics["provenance"]
    say(
        origin["complete"] < origin["images"],
        "look",
        f"{origin['images'] - origin['complete']} of {origin['images']} images lack a licence or an origin.",
        "Every image has a licence and an origin.",
        "provenance",
    )
    say(
        metrics["personal"]["rows"],
        "look",
        f"{_count(metrics['personal']['rows'], 'row')} seem to hold personal data.",
        "No text seems to hold personal data.",
        "contents",
    )
    if metrics["responses"]:
        say(
            metrics["responses"]["failed"],
            "look",
            f"{metrics['responses']['failed']} of {metrics['responses']['n']} responses fail a check.",
            f"All {metrics['responses']['n']} responses pass the checks.",
            "contents",
        )
    order = {"wrong": 0, "look": 1, "fine": 2}
    return sorted(found, key=lambda one: order[one.level])


def _worst(named: list[dict[str, Any]]) -> str:
    if not named:
        return ""
    auc, probe = max(((max(p["plain"] or 0, p["grouped"] or 0), p) for p in named), key=lambda x: x[0])
    return f"; the worst: {probe['probe']} tells {probe['target']} (AUC {auc:.2f})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
