"""Folds as files: figures, a table, votes for an audit, and the head that votes in a build."""

from __future__ import annotations

import csv
import re
from dataclasses import asdict
from pathlib import Path

from pipeline.annotators.safety_head import FAMILY, SafetyHeadAnnotator, save_safety_head
from pipeline.safellava.figures import Figure
from pipeline.safellava.folds import Folded, Labelled, trained_head
from pipeline.store import new_text, write_json, write_text
from schemas.errors import InputError

__all__ = ["folds_head", "folds_table", "write_folds"]

HEAD, VOTES = "head.npz", "votes.csv"
COLUMNS = ("item_id", "question", "annotator", "family", "value", "score")
IMAGE_ID = re.compile("[0-9a-f]{64}")
FIGURES = {"auc": "AUC, safe or not", "accuracy": "accuracy", "macro_f1": "macro F1", "ece": "ECE"}


def write_folds(out: Path, labelled: Labelled, folded: Folded, encoder: str, seed: int) -> None:
    """Write `folds.json`, `folds.md`, `votes.csv` and `head.npz`.

    Args:
        out: a folder.
        labelled: the images.
        folded: what each way reaches.
        encoder: whose features were taken.
        seed: of the folds, and of the head that is trained on all images.

    Raises:
        InputError: when `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    unsafe = (1 - folded.shares[:, 0]).round(3)
    known = dict(zip(labelled.sha256, unsafe.tolist(), strict=True))
    # Of a built dataset by image id, too, which stays when images are normalised in another way.
    by_key = dict(zip(labelled.keys, unsafe.tolist(), strict=True))
    known |= {key: share for key, share in by_key.items() if IMAGE_ID.fullmatch(key)}
    classes = folded.shares.shape[1]
    head = trained_head(labelled.features, labelled.labels, classes, seed, encoder, known)
    save_safety_head(out / HEAD, head)
    with new_text(out / VOTES) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for key, score in zip(labelled.keys, unsafe.tolist(), strict=True):
            value = "unsafe" if score >= 0.5 else "safe"
            table.writerow([key, "image_safe", SafetyHeadAnnotator.name, FAMILY, value, score])
    said = {
        "images": len(labelled.keys),
        "unsafe": int((labelled.labels > 0).sum()),
        "leak_groups": int(labelled.groups.max()) + 1,
        "encoder": encoder,
        "seed": seed,
        "ways": {name: asdict(way) for name, way in folded.ways.items()},
    }
    write_json(out / "folds.json", said)
    write_text(out / "folds.md", folds_table(labelled, folded))


def folds_head(labelled: Labelled) -> str:
    """What figures are of, in a sentence or two."""
    return (
        f"{len(labelled.keys):,} images, {int((labelled.labels > 0).sum()):,} of them unsafe, in "
        f"{int(labelled.groups.max()) + 1:,} leak groups; each guessed by what was trained on other groups. "
        "Percent, with 95 % intervals by leak group."
    )


def folds_table(labelled: Labelled, folded: Folded) -> str:
    """What each way reaches, in Markdown."""
    lines = [
        folds_head(labelled),
        "",
        f"| | {' | '.join(FIGURES.values())} |",
        f"|---|{'---|' * len(FIGURES)}",
    ]
    for name, way in folded.ways.items():
        lines.append(f"| {name} | {' | '.join(_shown(getattr(way, figure)) for figure in FIGURES)} |")
    return "\n".join([*lines, ""])


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{100 * figure.value:.1f}"
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"
