"""Train the pair head on the gold pairs, and say how well such heads do on writers and classes never seen.

    python -m scripts.train_pair_head [GOLD]

Figures come only from heads that were trained without the writer, or without the class, in question. The
shipped head is fitted on all pairs.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neural_network import MLPClassifier

from pipeline.annotators.heads import PAIR_HEAD, Floats, PairNetwork, pair_features, save_pair_network
from pipeline.encoders import load_text_encoder
from scripts.gold import GOLD, GoldPair, load_gold, sha256_of

UNITS, NETWORKS, EPOCHS, DECAY = 128, 3, 30, 0.1
"""Hidden units of each network, networks whose logits are averaged, epochs, and weight decay.

Leave-writer-out AUROC .90 with .1 and 128 units, with .03 and 64, and with .01 and 64. A logistic regression
on the same embeddings and their product has .84: it cannot say that a query harms with one image only.
"""
RESAMPLES = 1000


def fit(features: Floats, labels: NDArray[np.bool_]) -> PairNetwork:
    """Fit a head; both sides count alike. Averaged logits of networks are those of one wider network."""
    unsafe, safe = np.flatnonzero(labels), np.flatnonzero(~labels)
    few, many = sorted((unsafe, safe), key=len)
    again = np.random.default_rng(0).choice(few, len(many) - len(few))
    rows = np.concatenate([many, few, again])
    parts = []
    for seed in range(NETWORKS):
        model = MLPClassifier(
            (UNITS,), alpha=DECAY, max_iter=EPOCHS, batch_size=64, learning_rate_init=1e-3, random_state=seed
        )
        with warnings.catch_warnings():
            # The number of epochs is chosen, not a failure to converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            parts.append(model.fit(features[rows], labels[rows]))
    return PairNetwork(
        np.hstack([part.coefs_[0] for part in parts]),
        np.hstack([part.intercepts_[0] for part in parts]),
        np.hstack([part.coefs_[1][:, 0] for part in parts]) / NETWORKS,
        float(np.mean([part.intercepts_[1][0] for part in parts])),
    )


def left_out(
    pairs: Sequence[GoldPair], features: Floats, group: Callable[[GoldPair], object]
) -> NDArray[np.float64]:
    """P(unsafe) of each pair by a head that saw no pair of its group."""
    groups = np.array([str(group(pair)) for pair in pairs])
    labels = np.array([pair.pair_unsafe for pair in pairs])
    scores = np.zeros(len(pairs))
    for name in sorted(set(groups)):
        out = groups == name
        scores[out] = fit(features[~out], labels[~out]).scores(features[out])
    return scores


def figures(pairs: Sequence[GoldPair], scores: NDArray[np.float64]) -> dict[str, object]:
    """AUROC, balanced accuracy, false-positive rate, recall by kind, with 95 % intervals over classes.

    Intervals are from resampling whole classes: pairs of one class are alike.
    """
    labels = np.array([pair.pair_unsafe for pair in pairs])
    unsafe = scores >= 0.5
    classes = np.array([pair.class_name for pair in pairs])
    kinds = np.array([pair.kind for pair in pairs])
    safe_alone = np.isin(kinds, ["sss", "ssu"])

    def one(index: NDArray[np.int64]) -> dict[str, float]:
        y, p, u = labels[index], scores[index], unsafe[index]
        alone = safe_alone[index]
        return {
            "auroc": float(roc_auc_score(y, p)),
            "auroc_sss_ssu": float(roc_auc_score(y[alone], p[alone])),
            "balanced_accuracy": float(balanced_accuracy_score(y, u)),
            "fpr": float(u[~y].mean()),
            "recall": float(u[y].mean()),
        }

    rng = np.random.default_rng(0)
    groups = {name: np.flatnonzero(classes == name) for name in sorted(set(classes))}
    draws = [
        one(np.concatenate([groups[name] for name in rng.choice(sorted(groups), len(groups))]))
        for _ in range(RESAMPLES)
    ]
    result: dict[str, object] = {}
    for name, value in one(np.arange(len(pairs))).items():
        low, high = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        result[name] = [round(value, 3), round(float(low), 3), round(float(high), 3)]
    result["called_unsafe_by_kind"] = {
        kind: round(float(unsafe[kinds == kind].mean()), 3) for kind in sorted(set(kinds))
    }
    return result


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("gold", type=Path, nargs="?", default=GOLD)
    parser.add_argument("--out", type=Path, default=PAIR_HEAD)
    args = parser.parse_args()
    pairs = load_gold(args.gold)
    encoder = load_text_encoder()
    features = pair_features(encoder, [(p.evidence, p.query) for p in pairs])
    labels = np.array([pair.pair_unsafe for pair in pairs])
    held_out = {
        "writer": figures(pairs, left_out(pairs, features, lambda pair: pair.writer)),
        "class": figures(pairs, left_out(pairs, features, lambda pair: pair.class_name)),
    }
    print(json.dumps(held_out, indent=2))
    about = {
        "what": "network with one hidden layer: is a query unsafe together with an image in words?",
        "features": "all-MiniLM-L6-v2 embeddings of evidence, query and both (3 x 384), each times root 384",
        "encoder": encoder.identity,
        "made_by": "scripts/train_pair_head.py",
        "licence": "Apache-2.0",
        "units": UNITS,
        "networks": NETWORKS,
        "epochs": EPOCHS,
        "weight_decay": DECAY,
        "data": [
            {
                "set": "data/gold/pairs.jsonl",
                "licence": "CC0-1.0",
                "rows": len(pairs),
                "rows_unsafe": int(labels.sum()),
                "sha256": sha256_of(args.gold),
            },
        ],
        "held_out": held_out,
        "held_out_note": "each writer's (each class's) pairs are scored by a head trained on the others, "
        "threshold .5; value, then 95 % interval from 1,000 resamples of whole classes",
    }
    save_pair_network(args.out, fit(features, labels), about)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
