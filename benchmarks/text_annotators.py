"""How good are the text annotators? Three human-labelled sets, each left out of what is measured on it.

    python -m benchmarks.text_annotators DATA_DIR --per-set 300 --out FILE

DATA_DIR holds the sets as their authors publish them (scripts/train_text_head.py). From each of xstest,
openai_moderation and coconot a sample is drawn, stratified by label. The head that is measured on a set is
trained on the other four; the language model sees the few examples of prompts/annotate/text_safe.yaml, which
come from no set. Answers are kept, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from pipeline.annotators import TextHead, TextItem, TextLLM, Vote, Voter, aggregate, load_prompt
from pipeline.encoders import load_text_encoder
from pipeline.engine import Engine, LlamaServer, open_cache
from pipeline.models import locate, model_sha256
from pipeline.store import write_json
from scripts.train_text_head import TextSet, fit, load_sets

MEASURED = ("xstest", "openai_moderation", "coconot")
MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"
PROMPT = Path("prompts/annotate/text_safe.yaml")
STATE = Path(".holisafe/benchmark")
RESAMPLES = 1000


class Counter:
    """A progress that prints a line now and then."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._done = 0
        self._since = time.monotonic()

    def start(self, what: str, total: int | None) -> None:
        """Begin a new count."""
        print(f"{what}: {total}", flush=True)
        self._done = 0
        self._since = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count `n` more items."""
        self._done += n
        if n and self._done % 50 == 0:
            each = (time.monotonic() - self._since) / self._done
            print(f"  {self._done} ({each:.2f} s each)", flush=True)


def sample(texts: TextSet, size: int) -> list[int]:
    """Rows of a set, as many of each label as their share asks for, in the order of their hashes."""
    order = sorted(range(len(texts.texts)), key=lambda i: hashlib.sha256(texts.texts[i].encode()).hexdigest())
    unsafe = round(min(size, len(order)) * float(texts.labels.mean()))
    counts = {1: unsafe, 0: min(size, len(order)) - unsafe}
    chosen = []
    for i in order:
        if counts[int(texts.labels[i])] > 0:
            counts[int(texts.labels[i])] -= 1
            chosen.append(i)
    return chosen


def measures(labels: NDArray[np.int64], scores: NDArray[np.float64], threshold: float) -> dict[str, float]:
    """All shares at one threshold; a share of nothing is 0."""
    unsafe = scores >= threshold
    hits, flagged = int((unsafe & (labels == 1)).sum()), int(unsafe.sum())
    precision = hits / flagged if flagged else 0.0
    recall = hits / max(1, int(labels.sum()))
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "macro_f1": float(f1_score(labels, unsafe, average="macro")),
        "fpr": float(unsafe[labels == 0].mean()),
        "auroc": float(roc_auc_score(labels, scores)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, unsafe)),
    }


def with_intervals(
    labels: NDArray[np.int64], scores: NDArray[np.float64], threshold: float
) -> dict[str, list[float]]:
    """Each measure as [value, low, high]: a 95 % bootstrap interval over rows, both labels kept in number."""
    rng = np.random.default_rng(0)
    sides = [np.flatnonzero(labels == side) for side in (0, 1)]
    draws = []
    for _ in range(RESAMPLES):
        index = np.concatenate([rng.choice(side, len(side)) for side in sides])
        draws.append(measures(labels[index], scores[index], threshold))
    result = {}
    for name, value in measures(labels, scores, threshold).items():
        low, high = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        result[name] = [round(value, 3), round(float(low), 3), round(float(high), 3)]
    return result


def judged(labels: Sequence[int], votes: Sequence[Vote], threshold: float) -> dict[str, object]:
    """What one annotator's votes are worth; rows it could not score are counted, and left out."""
    known = [(label, vote.score) for label, vote in zip(labels, votes, strict=True) if vote.score is not None]
    truth = np.array([label for label, _ in known])
    scores = np.array([score for _, score in known])
    return {
        "rows": len(votes),
        "unscored": len(votes) - len(known),
        **with_intervals(truth, scores, threshold),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the published sets")
    parser.add_argument("--per-set", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--threshold", type=float, default=0.5)
    args = parser.parse_args()
    sets = load_sets(args.data)
    encoder = load_text_encoder()
    embedded = {name: encoder.embed(texts.texts) for name, texts in sets.items()}
    sha256, prompt = model_sha256(MODEL), load_prompt(PROMPT)
    server = LlamaServer(locate(MODEL), sha256, log=STATE / "llama.log", threads=args.threads)
    results: dict[str, dict[str, object]] = {}
    progress = Counter()
    with open_cache(STATE / "calls.sqlite") as cache, server:
        for name in MEASURED:
            rows = sample(sets[name], args.per_set)
            labels = [int(sets[name].labels[i]) for i in rows]
            items = [TextItem(f"{name}.{i}", sets[name].texts[i]) for i in rows]
            head = fit(embedded, sets, [other for other in sets if other != name])
            engine = Engine(cache, server)
            voter = Voter("local", engine, server.backend_id, MODEL, "qwen2.5", server.terms, local=True)
            model = TextLLM(voter, prompt, stage="benchmark")
            votes: dict[str, list[Vote]] = {}
            for annotator in (TextHead(encoder, head), model):
                progress.start(f"{name}, {annotator.name}", len(items))
                begun = time.monotonic()
                votes[annotator.name] = annotator.annotate(items, progress)
                print(f"  {time.monotonic() - begun:.0f} s", flush=True)
            together = [
                _as_vote(item.id, aggregate(pair, args.threshold)[item.id].score)
                for item, *pair in zip(items, *votes.values(), strict=True)
            ]
            results[name] = {
                who: judged(labels, cast, args.threshold)
                for who, cast in {**votes, "aggregate": together}.items()
            }
    results["mean"] = _means(results)
    _print(results)
    write_json(
        args.out,
        {
            "model": MODEL,
            "backend_id": server.backend_id,
            "prompt_version": prompt.version,
            "per_set": args.per_set,
            "threshold": args.threshold,
            "intervals": "95 %, 1,000 bootstrap resamples within labels",
            "results": results,
        },
    )


def _as_vote(item_id: str, score: float | None) -> Vote:
    if score is None:
        return Vote(item_id, "text_safe", "aggregate", "all", "unscorable", None, None)
    return Vote(item_id, "text_safe", "aggregate", "all", "ok", "scored", score)


def _means(results: dict[str, dict[str, object]]) -> dict[str, object]:
    means: dict[str, object] = {}
    for who in next(iter(results.values())):
        cells = [results[name][who] for name in results]
        assert all(isinstance(cell, dict) for cell in cells)  # noqa: S101 - made above
        names = [key for key, value in cells[0].items() if isinstance(value, list)]  # type: ignore[attr-defined]
        means[who] = {
            name: [round(float(np.mean([cell[name][0] for cell in cells])), 3)]  # type: ignore[index]
            for name in names
        }
    return means


def _print(results: dict[str, dict[str, object]]) -> None:
    columns = ("precision", "recall", "f1", "macro_f1", "fpr", "auroc", "balanced_accuracy")
    print(f"\n{'set':18} {'annotator':10} " + " ".join(f"{name[:8]:>16}" for name in columns))
    for name, cells in results.items():
        for who, cell in cells.items():
            shown = [_cell(cell[column]) for column in columns]  # type: ignore[index]
            print(f"{name:18} {who:10} " + " ".join(f"{text:>16}" for text in shown))


def _cell(value: Sequence[float]) -> str:
    if len(value) == 1:
        return f"{value[0]:.3f}"
    return f"{value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"


if __name__ == "__main__":
    main()
