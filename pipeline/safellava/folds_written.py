"""Folds as files: figures, a table, votes for an audit, and the head that votes in a build."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.annotators.safety_head import FAMILY, SafetyHeadAnnotator, save_safety_head
from pipeline.safellava.folds import Folded, Labelled, Measure, Probabilities, trained_head
from pipeline.store import new_text, write_json, write_text
from schemas.errors import InputError

__all__ = ["folds_table", "write_folds"]

HEAD, VOTES = "head.npz", "votes.csv"
COLUMNS = ("item_id", "question", "annotator", "family", "value", "score")


def write_folds(
    out: Path, labelled: Labelled, ways: Sequence[Folded], shares: Probabilities, encoder: str, seed: int
) -> None:
    """Write `folds.json`, `folds.md`, `votes.csv` and `head.npz`.

    Args:
        out: a folder.
        labelled: the images.
        ways: what each way reaches.
        shares: the head's probabilities of the classes of each image, by who had not seen it, (n, classes).
        encoder: whose features were taken.
        seed: of the folds, and of the head that is trained on all images.

    Raises:
        InputError: when `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder with --out")
    unsafe = (1 - shares[:, 0]).round(3)
    known = dict(zip(labelled.sha256, unsafe.tolist(), strict=True))
    save_safety_head(out / HEAD, trained_head(labelled.features, labelled.labels, seed, encoder, known))
    with new_text(out / VOTES) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for key, score in zip(labelled.keys, unsafe.tolist(), strict=True):
            value = "unsafe" if score >= 0.5 else "safe"
            table.writerow([key, "image_safe", SafetyHeadAnnotator.name, FAMILY, value, score])
    said = {
        "images": len(labelled.keys),
        "unsafe": int(labelled.unsafe.sum()),
        "leak_groups": int(labelled.groups.max()) + 1,
        "left_out": labelled.left_out,
        "encoder": encoder,
        "seed": seed,
        "ways": [way.as_json() for way in ways],
    }
    write_json(out / "folds.json", said)
    write_text(out / "folds.md", folds_table(labelled, ways))


def folds_table(labelled: Labelled, ways: Sequence[Folded]) -> str:
    """What each way reaches, in Markdown."""
    lines = [
        f"{len(labelled.keys):,} images, {int(labelled.unsafe.sum()):,} of them unsafe, in "
        f"{int(labelled.groups.max()) + 1:,} leak groups; each guessed by what was trained on other groups.",
        "95 % intervals, leak groups drawn anew.",
        "",
        "| | AUC unsafe | accuracy | macro-F1 | calibration error |",
        "|---|---|---|---|---|",
    ]
    for way in ways:
        cells = [_shown(m) for m in (way.auc, way.accuracy, way.macro_f1, way.ece)]
        lines.append(f"| {way.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _shown(measure: Measure) -> str:
    if measure.low is None or measure.high is None:
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} ({measure.low:.3f} to {measure.high:.3f})"
