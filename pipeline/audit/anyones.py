"""Audit of a dataset that anybody made."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.anyset import open_anyset
from pipeline.audit.embeddings import embeddings_of
from pipeline.audit.findings import Known, findings
from pipeline.audit.report import Cards, Report, render
from pipeline.audit.selftest import self_test
from pipeline.audit.voted import votes_of_file
from pipeline.store import write_json, write_text
from pipeline.workspace import Progress

__all__ = ["audit_anyset"]


def audit_anyset(
    place: str,
    out: Path,
    progress: Progress,
    *,
    votes: Path | None = None,
    against: str | None = None,
    test_itself: bool = False,
    embed: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `index.html` and `metrics.json` (keys in docs/audit.md) to `out`, which is made.

    Args:
        place: the dataset, as `open_anyset` takes it.
        out: a folder; what it holds of an earlier audit is replaced.
        progress: told of images and of what is looked for.
        votes: a file of votes on the dataset (`votes_of_file`); None: those that came with it.
        against: another dataset, whose copies in this one are looked for.
        test_itself: whether flaws are planted in copies of the dataset and looked for, too.
        embed: whether the labels of images are guessed from embeddings, by the embedded encoder.
        seed: of folds and resamples.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: when nothing in a dataset can be audited.
        ModelMissingError: when the encoder's weights are wanted and not in the store.
    """
    found = open_anyset(place)
    other = None if against is None else open_anyset(against)
    cast = None if votes is None else votes_of_file(votes, found)
    known = Known(embed=partial(embeddings_of, found, progress)) if embed else None
    metrics = findings(found, progress, votes=cast, against=other, known=known, seed=seed)
    if test_itself:
        progress.start("self-test", None)
        metrics["self_test"] = [asdict(outcome) for outcome in self_test(found.rows, seed)]
    if cast is not None:
        found = replace(found, votes=cast)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", metrics)
    name = Path(place).resolve().name if Path(place).exists() else place
    write_text(out / "index.html", render(Report(f"Audit of {name}", metrics, Cards.of(found, metrics))))
    return metrics
