"""Train the text head on public human-labelled sets and the gold queries, and say how it does on unseen sets.

    python -m scripts.train_text_head DATA_DIR

DATA_DIR holds the sets as their authors publish them, a folder each; `load_sets` says which files. Figures
on a set come only from heads that were trained without it. The shipped head is fitted on all of them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from pipeline.annotators.heads import TEXT_HEAD, LinearHead, save_head
from pipeline.encoders import load_text_encoder
from schemas.errors import InputError
from scripts.gold import GoldPair, load_gold

Floats = NDArray[np.float32]

STRENGTH = 0.2
"""Inverse regularisation: of .05, .2, 1 and 3 none was better by more than .02 in mean macro-F1."""


@dataclass(frozen=True)
class TextSet:
    """A set of texts with human labels: 1 unsafe, 0 safe."""

    name: str
    licence: str
    rule: str
    texts: list[str]
    labels: NDArray[np.int64]


def _rows(path: Path) -> Iterable[dict[str, object]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder that holds the published sets")
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            yield from csv.DictReader(file)
        else:
            yield from map(json.loads, file)


def load_sets(folder: Path) -> dict[str, TextSet]:
    """Read the five public sets, and the gold queries of this repository.

    Raises:
        InputError: when a file is missing.
    """
    coconot = "Requests with safety concerns"
    # name, licence, what counts as unsafe, the files, the text's field, label of a row (None: left out)
    specs: list[tuple[str, str, str, list[str], str, Callable[[Mapping[str, object]], bool | None]]] = [
        (
            "xstest",
            "CC-BY-4.0",
            "label unsafe",
            ["xstest_prompts.csv"],
            "prompt",
            lambda row: row["label"] == "unsafe",
        ),
        (
            "openai_moderation",
            "MIT",
            "any label 1",
            ["samples.jsonl"],
            "prompt",
            lambda row: any(value == 1 for key, value in row.items() if key != "prompt"),
        ),
        (
            "coconot",
            "MIT",
            f"noncompliance prompts of the category '{coconot}'; all contrast prompts are safe; the other "
            "categories (incomplete, unsupported, indeterminate, humanizing) are no harm and are left out",
            ["coconot_eval.jsonl", "coconot_contrast_eval.jsonl"],
            "prompt",
            lambda _row: None,
        ),
        (
            "ailuminate",
            "CC-BY-4.0",
            "every prompt",
            ["airr_official_1.0_demo_en_us_prompt_set_release.csv"],
            "prompt_text",
            lambda _row: True,
        ),
        (
            "hatecheck",
            "CC-BY-4.0",
            "label_gold hateful",
            ["test_suite_cases.csv"],
            "test_case",
            lambda row: row["label_gold"] == "hateful",
        ),
    ]
    sets = {}
    for name, licence, rule, files, field, label in specs:
        found: list[tuple[str, bool]] = []
        for file in files:
            for row in _rows(folder / name / file):
                unsafe = label(row)
                if name == "coconot":
                    wrong = "contrast" not in file
                    unsafe = wrong if not wrong or row["category"] == coconot else None
                if unsafe is not None:
                    found.append((str(row[field]).strip(), unsafe))
        sets[name] = TextSet(
            name, licence, rule, [text for text, _ in found], np.array([int(unsafe) for _, unsafe in found])
        )
    return sets | {"gold": gold_queries(load_gold())}


def gold_queries(pairs: Iterable[GoldPair]) -> TextSet:
    """The queries of gold pairs, each once: most of them say "this" and name no harm."""
    queries = {pair.query: int(pair.text_unsafe) for pair in pairs}
    return TextSet("gold", "CC0-1.0", "text_unsafe", list(queries), np.array(list(queries.values())))


def fit(embedded: Mapping[str, Floats], sets: Mapping[str, TextSet], names: Iterable[str]) -> LinearHead:
    """Fit a head on some of the sets; each set counts alike, and then each class."""
    used = list(names)
    features = np.vstack([embedded[name] for name in used])
    labels = np.concatenate([sets[name].labels for name in used])
    weights = np.concatenate([np.full(len(sets[name].labels), 1 / len(sets[name].labels)) for name in used])
    for side in (0, 1):
        weights[labels == side] *= 0.5 / weights[labels == side].sum()
    model = LogisticRegression(C=STRENGTH, max_iter=2000)
    model.fit(features, labels, sample_weight=weights * len(labels))
    return LinearHead(model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def figures(
    labels: NDArray[np.int64], scores: list[float], threshold: float = 0.5
) -> dict[str, float | None]:
    """Macro-F1, AUROC, balanced accuracy, recall and false-positive rate; None where a side is missing."""
    unsafe = np.array(scores) >= threshold
    both = 0 < labels.sum() < len(labels)
    shares = {
        "macro_f1": f1_score(labels, unsafe, average="macro") if both else None,
        "auroc": roc_auc_score(labels, scores) if both else None,
        "balanced_accuracy": balanced_accuracy_score(labels, unsafe) if both else None,
        "recall": unsafe[labels == 1].mean() if labels.any() else None,
        "fpr": unsafe[labels == 0].mean() if not labels.all() else None,
    }
    return {name: None if share is None else round(float(share), 3) for name, share in shares.items()}


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the published sets")
    parser.add_argument("--out", type=Path, default=TEXT_HEAD)
    args = parser.parse_args()
    sets = load_sets(args.data)
    encoder = load_text_encoder()
    embedded = {}
    for name, texts in sets.items():
        print(f"{name}: {len(texts.texts)} texts, {int(texts.labels.sum())} unsafe", flush=True)
        embedded[name] = encoder.embed(texts.texts)
    held_out = {}
    for name in sets:
        head = fit(embedded, sets, [other for other in sets if other != name])
        held_out[name] = figures(sets[name].labels, head.scores(embedded[name]))
        print(f"left out {name}: {held_out[name]}", flush=True)
    head = fit(embedded, sets, sets)
    about = {
        "what": "logistic regression on sentence embeddings: is a text unsafe?",
        "features": "all-MiniLM-L6-v2 embedding (384); the last of the 385 numbers is the bias",
        "encoder": encoder.identity,
        "made_by": "scripts/train_text_head.py",
        "licence": "Apache-2.0",
        "inverse_regularisation": STRENGTH,
        "weights": "every set counts alike, then both classes count alike",
        "data": [
            {
                "set": s.name,
                "licence": s.licence,
                "unsafe": s.rule,
                "rows": len(s.texts),
                "rows_unsafe": int(s.labels.sum()),
                "texts_sha256": hashlib.sha256("\n".join(s.texts).encode()).hexdigest(),
            }
            for s in sets.values()
        ],
        "held_out": held_out,
        "held_out_note": "each set's figures are from a head trained on the others, at threshold .5; the "
        "shipped head saw them all, so its figures on them would flatter",
    }
    save_head(args.out, head, about)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
