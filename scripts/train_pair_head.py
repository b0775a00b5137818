"""Train the pair head on the gold pairs, and say how well such heads do on classes they never saw.

    python -m scripts.train_pair_head [GOLD]

The text head comes first (scripts/train_text_head.py): one of its scores is a feature. Figures come only
from heads that were trained without the class in question. The shipped head is fitted on all pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from pipeline.annotators.base import describe
from pipeline.annotators.heads import (
    DIM,
    PAIR_HEAD,
    TEXT_HEAD,
    Floats,
    LinearHead,
    load_head,
    pair_features,
    save_head,
)
from pipeline.encoders import load_text_encoder

GOLD = Path("data/gold/pairs.jsonl")
STRENGTH = 0.5
"""Inverse regularisation. Of .1, .5 and 2 none was better than another by more than .03 in AUROC."""
RESAMPLES = 1000


def fit(features: Floats, labels: NDArray[np.bool_]) -> LinearHead:
    """Fit a head; both sides count alike."""
    model = LogisticRegression(C=STRENGTH, max_iter=2000, class_weight="balanced").fit(features, labels)
    return LinearHead(model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def kinds(rows: list[dict[str, object]]) -> list[str]:
    """What each gold pair is, from its id: sss, ssu, suu, usu, uuu, or usp for a protective question."""
    return [str(row["id"]).split(".")[1] for row in rows]


def twins(rows: list[dict[str, object]]) -> list[tuple[int, int]]:
    """Indices (ssu, sss) of pairs with the same query and different images."""
    found = []
    names = kinds(rows)
    for i, row in enumerate(rows):
        found += [
            (i, j)
            for j, other in enumerate(rows)
            if names[i] == "ssu" and names[j] == "sss" and row["query"] == other["query"]
        ]
    return found


def figures(
    rows: list[dict[str, object]], labels: NDArray[np.bool_], scores: NDArray[np.float64]
) -> dict[str, object]:
    """AUROC, balanced accuracy, false-positive rate, recall by kind, with 95 % intervals over classes.

    Intervals are from resampling whole classes: pairs of one class are alike.
    """
    unsafe = scores >= 0.5
    classes = np.array([str(row["class"]) for row in rows])
    names = np.array(kinds(rows))
    pairs = twins(rows)

    def one(index: NDArray[np.int64]) -> dict[str, float]:
        y, p, u = labels[index], scores[index], unsafe[index]
        return {
            "auroc": float(roc_auc_score(y, p)),
            "balanced_accuracy": float(balanced_accuracy_score(y, u)),
            "fpr": float(u[~y].mean()),
            "recall": float(u[y].mean()),
        }

    everything = np.arange(len(rows))
    rng = np.random.default_rng(0)
    groups = {name: np.flatnonzero(classes == name) for name in sorted(set(classes))}
    draws = [
        one(np.concatenate([groups[name] for name in rng.choice(sorted(groups), len(groups))]))
        for _ in range(RESAMPLES)
    ]
    result: dict[str, object] = {}
    for name, value in one(everything).items():
        low, high = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        result[name] = [round(value, 3), round(float(low), 3), round(float(high), 3)]
    result["called_unsafe_by_kind"] = {
        kind: round(float(unsafe[names == kind].mean()), 3) for kind in sorted(set(names))
    }
    right = [scores[i] > scores[j] for i, j in pairs]
    result["same_query_risky_image_scored_higher"] = [round(float(np.mean(right)), 3), len(right)]
    return result


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("gold", type=Path, nargs="?", default=GOLD)
    parser.add_argument("--out", type=Path, default=PAIR_HEAD)
    args = parser.parse_args()
    text = args.gold.read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    items = [(describe(row["caption"], row["ocr_text"]) or "", str(row["query"])) for row in rows]
    encoder = load_text_encoder()
    features = pair_features(encoder, load_head(TEXT_HEAD, DIM), items)
    labels = np.array([row["pair_unsafe"] for row in rows])
    classes = np.array([row["class"] for row in rows])
    scores = np.zeros(len(rows))
    for name in sorted(set(classes)):
        out = classes == name
        scores[out] = fit(features[~out], labels[~out]).scores(features[out])
    held_out = figures(rows, labels, scores)
    print(json.dumps(held_out, indent=2))
    about = {
        "what": "logistic regression: is a query unsafe together with an image in words?",
        "features": "all-MiniLM-L6-v2 embeddings of evidence, query, both, and the product of the first two "
        "(4 x 384), and the text head's score of the query; the last number is the bias",
        "encoder": encoder.identity,
        "made_by": "scripts/train_pair_head.py",
        "licence": "Apache-2.0",
        "inverse_regularisation": STRENGTH,
        "data": [
            {
                "set": "data/gold/pairs.jsonl",
                "licence": "CC0-1.0",
                "rows": len(rows),
                "rows_unsafe": int(labels.sum()),
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            },
            {"set": "those of text_head.json, through the text head's score"},
        ],
        "held_out": held_out,
        "held_out_note": "each class's pairs are scored by a head trained on the others, threshold .5; "
        "value, then 95 % interval from 1,000 resamples of whole classes",
    }
    save_head(args.out, fit(features, labels), about)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
