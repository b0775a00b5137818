"""Calibrate the image-text encoder of params on labelled images, class by class, and say what it is worth.

    python -m scripts.calibrate_encoder [--workspace .] [--examples data/seed] [--votes votes.parquet]
        [--out pipeline/encoders/calibration.json] [--report docs/encoder-calibration.md]

EXAMPLES is a folder with `metadata.jsonl` (`file_name`, `class`, `safe`). With --votes, the votes that
`label_images` wrote in a build without calibration, the labels of all annotators together are compared too.
Everything measured is of thresholds that were chosen without the image (five folds).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.annotators import EncoderAnnotator, Vote, aggregate, embedded, image_item
from pipeline.curate.normalise import normalise
from pipeline.encoders import load_encoder
from pipeline.encoders.calibrate import (
    FEWEST,
    FOLDS,
    Calibration,
    ClassFigures,
    Examples,
    Thresholds,
    figures,
    fit,
    held_out,
)
from pipeline.intervals import wilson
from pipeline.store import read_rows, sha256_bytes, write_json, write_text
from pipeline.workspace import Workspace

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Before:
    """The images by id, and P(unsafe) without calibration."""

    ids: list[str]
    scores: Floats


def look(annotator: EncoderAnnotator, folder: Path, workspace: Workspace) -> tuple[Examples, Before]:
    """Embed the images as a build would, after curate's normalisation."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    items, ids = [], []
    for row in rows:
        data = (folder / row["file_name"]).read_bytes()
        ids.append(sha256_bytes(data))
        items.append(image_item(ids[-1], None, None, normalise(data, workspace.params.curate).data))
    shares = []
    for item, vector in embedded(annotator.encoder, items, None):
        if isinstance(vector, str):
            raise SystemExit(f"{item.id}: {vector}")
        shares.append(annotator.shares(vector.astype(np.float64)))
    examples = Examples(
        annotator.unsafe_classes,
        np.array(shares),
        np.array([row["class"] for row in rows]),
        np.array([not row["safe"] for row in rows]),
    )
    return examples, Before(ids, examples.shares.sum(1).round(3))


def after(examples: Examples, chosen: Floats, classes: dict[str, ClassFigures]) -> Floats:
    """P(unsafe) of each image with the thresholds that were chosen without it."""
    found = []
    for shares, thresholds in zip(examples.shares, chosen, strict=True):
        at = {
            name: classes[name].model_copy(update={"threshold": float(t)})
            for name, t in zip(examples.names, thresholds, strict=True)
        }
        one = Calibration(encoder="", temperature=1, offset=0, level=0.5, classes=at)
        found.append(one.score(examples.names, shares))
    return np.array(found).round(3)


def judged(flagged: Flags, unsafe: Flags) -> str:
    """Cells of a table: flagged of unsafe, flagged of safe, precision, balanced accuracy."""
    hits, alarms = int((flagged & unsafe).sum()), int((flagged & ~unsafe).sum())
    recall = hits / unsafe.sum()
    cells = [
        f"{hits} of {unsafe.sum()}",
        f"{alarms} of {(~unsafe).sum()}",
        share(hits / (hits + alarms) if hits + alarms else None, wilson(hits, hits + alarms)),
        share(recall, wilson(hits, int(unsafe.sum()))),
        share(balanced(flagged, unsafe), None),
    ]
    return " | ".join(cells)


def balanced(flagged: Flags, unsafe: Flags) -> float:
    """Balanced accuracy."""
    return float((flagged[unsafe].mean() + (~flagged[~unsafe]).mean()) / 2)


def share(value: float | None, interval: tuple[float, float] | None) -> str:
    """A share with its interval, or a dash."""
    if value is None:
        return "–"
    return f"{value:.2f}" + (f" ({interval[0]:.2f}–{interval[1]:.2f})" if interval else "")


def together(
    path: Path, ids: Sequence[str], scores: Floats, threshold: float
) -> dict[str, tuple[bool, bool]]:
    """Whether each image is unsafe by all annotators, before and with these scores of the encoder."""
    votes: dict[str, list[Vote]] = defaultdict(list)
    for row in read_rows(path):
        if row["question"] == "image_safe":
            score = None if row["score"] is None else round(row["score"], 3)
            votes[row["item_id"]].append(Vote(**{**row, "score": score}))
    found = {}
    for item_id, score in zip(ids, scores, strict=True):
        if item_id not in votes:
            continue
        old = votes[item_id]
        others = [v for v in old if v.annotator != "encoder"]
        family = next(v.family for v in old if v.annotator == "encoder")
        value = "unsafe" if score >= threshold else "safe"
        mine = Vote(item_id, "image_safe", "encoder", family, "ok", value, float(score))
        found[item_id] = (
            aggregate(old, threshold)[item_id].value == "unsafe",
            aggregate([*others, mine], threshold)[item_id].value == "unsafe",
        )
    return found


def class_table(classes: dict[str, ClassFigures], examples: Examples) -> list[str]:
    """One row a class."""
    rows = [
        "| class | threshold | chosen on | unsafe, safe | found | false alarms | precision | recall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, c in classes.items():
        own = int((~examples.unsafe & (examples.classes == name)).sum())
        sides = f"{c.unsafe}, {c.safe} ({own} of the class)"
        rows.append(
            f"| {name} | {c.threshold:.4f} | {c.by} | {sides} | {c.found} | {c.false_alarms} | "
            f"{share(c.precision, c.precision_95)} | {share(c.recall, c.recall_95)} |"
        )
    return rows


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--examples", type=Path, default=Path("data/seed"))
    parser.add_argument("--votes", type=Path, help="votes.parquet of label_images")
    parser.add_argument("--out", type=Path, default=Path("pipeline/encoders/calibration.json"))
    parser.add_argument("--report", type=Path, default=Path("docs/encoder-calibration.md"))
    args = parser.parse_args()
    workspace = Workspace(args.workspace)
    params = workspace.params
    encoder = load_encoder(params.encoder, workspace.root)
    annotator = EncoderAnnotator(
        encoder,
        workspace.taxonomy,
        temperature=params.encoder.temperature,
        offset=params.encoder.offset,
    )
    examples, before = look(annotator, args.examples, workspace)
    thresholds = fit(examples)
    chosen = held_out(examples, params.seed)
    classes = figures(examples, thresholds, chosen)
    calibration = Calibration(
        encoder=encoder.identity,
        temperature=params.encoder.temperature,
        offset=params.encoder.offset,
        level=thresholds.level,
        classes=classes,
    )
    write_json(args.out, calibration.model_dump(mode="json"))
    scores = after(examples, chosen, classes)
    text = report(examples, before, scores, calibration, thresholds, params.thresholds.image_safe)
    if args.votes:
        text += votes_report(args.votes, examples, before.ids, scores, params.thresholds.image_safe)
    write_text(args.report, text)
    print(text)


def report(
    examples: Examples,
    before: Before,
    scores: Floats,
    calibration: Calibration,
    thresholds: Thresholds,
    threshold: float,
) -> str:
    """The report as Markdown."""
    both = sum(c.by == "both sides" for c in calibration.classes.values())
    unsafe, old, new = examples.unsafe, before.scores >= threshold, scores >= threshold
    anew, no_more = ~old & new, old & ~new
    without = [n for n in sorted(set(examples.classes.tolist())) if n not in examples.names]
    verdict = (
        "The vote with calibration separates the sides no better on images that it has not seen, so that\n"
        "params keep `encoder.calibration: null`."
        if balanced(new, examples.unsafe) <= balanced(old, examples.unsafe)
        else "The vote with calibration separates the sides better on images that it has not seen."
    )
    lines = [
        "# The encoder as a filter, class by class",
        "",
        verdict,
        "",
        "Written by `python -m scripts.calibrate_encoder`; what the filters do is in",
        "`pipeline/encoders/calibrate.py`, the thresholds in `calibration.json` beside it.",
        "",
        f"Encoder `{calibration.encoder}`,",
        f"temperature {calibration.temperature}, offset {calibration.offset}.",
        f"{len(examples.unsafe)} labelled images, {int(examples.unsafe.sum())} unsafe; every figure is of",
        f"thresholds chosen without the image ({FOLDS} folds). Intervals are Wilson's, 95 %.",
        f"A class with {FEWEST} unsafe examples has the threshold with the best F1 on both sides: {both} of",
        f"{len(examples.names)}. The others are calibrated on the safe images: {thresholds.level:.2%}",
        "of them stay below the threshold of each, the share with the best F1 over all classes together.",
        "Safe images are those of all classes, since a filter sees them all.",
        "",
        *class_table(calibration.classes, examples),
        "",
        f"No unsafe sentences, so no filter: {', '.join(without) or 'none'}.",
        "",
        "## The encoder's vote, before and after",
        "",
        f"An image is flagged when the share of all unsafe sentences is at least {threshold:g} (before), or",
        "when any class's filter fires (after, held out).",
        "",
        "| | unsafe flagged | safe flagged | precision | recall | balanced accuracy |",
        "|---|---|---|---|---|---|",
        f"| before | {judged(old, examples.unsafe)} |",
        f"| after | {judged(new, examples.unsafe)} |",
        "",
        f"{int((old != new).sum())} of {len(old)} images change sides: {int((anew & unsafe).sum())} unsafe",
        f"and {int((anew & ~unsafe).sum())} safe ones are flagged anew,",
        f"{int((no_more & unsafe).sum())} unsafe and {int((no_more & ~unsafe).sum())} safe ones no more.",
        "",
    ]
    return "\n".join(lines)


def votes_report(path: Path, examples: Examples, ids: Sequence[str], scores: Floats, threshold: float) -> str:
    """What becomes of the labels of a build."""
    labels = together(path, ids, scores, threshold)
    rows = [i for i, item_id in enumerate(ids) if item_id in labels]
    unsafe = examples.unsafe[rows]
    old, new = (np.array([labels[ids[i]][side] for i in rows]) for side in (0, 1))
    lines = [
        "## The labels of a build, before and after",
        "",
        f"All annotators together, on the {len(rows)} of these images that a build labelled. An image is",
        "accepted where the label is the side that it was collected for.",
        "",
        "| | unsafe flagged | safe flagged | precision | recall | balanced accuracy | accepted |",
        "|---|---|---|---|---|---|---|",
        f"| before | {judged(old, unsafe)} | {int((old == unsafe).sum())} |",
        f"| after | {judged(new, unsafe)} | {int((new == unsafe).sum())} |",
        "",
        f"{int((old != new).sum())} labels change.",
        "",
    ]
    return "\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
