"""Ask the language model about gold items: calibrate its leaning, and measure every judge of texts and pairs.

    python -m scripts.calibrate DATA_DIR [--per-question 400]

DATA_DIR holds the public sets that the text head is trained on (scripts/train_text_head.py). For each of the
three questions it prints the slope and offset for prompts/annotate/<question>.yaml, and how good the model,
the heads and their mean are. All figures are of what saw nothing of the item's writer: heads are trained,
slope and offset are fitted on the others. Answers are kept, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from pipeline.annotators import load_prompt
from pipeline.annotators.heads import pair_features
from pipeline.annotators.llm import PARAMS
from pipeline.annotators.prompt import leaning
from pipeline.encoders import load_text_encoder
from pipeline.engine import Engine, LlamaServer, Request, open_cache
from pipeline.models import locate, model_sha256
from scripts.gold import GOLD, GoldPair, load_gold, spread
from scripts.train_pair_head import left_out
from scripts.train_text_head import fit, gold_queries, load_sets

MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"
PROMPTS = Path("prompts/annotate")
STATE = Path(".holisafe/benchmark")
RESAMPLES = 1000

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


def leanings(engine: Engine, backend_id: str, question: str, shown: Sequence[str]) -> Scores:
    """How far the model leans to "unsafe" on each item."""
    prompt = load_prompt(PROMPTS / f"{question}.yaml")
    requests = [Request(backend_id, MODEL, prompt.messages(text), PARAMS) for text in shown]
    answers = engine.ask_all(requests, stage="calibrate", on_progress=_say, warm=prompt.messages("")[:-1])
    found = [leaning(answer.first_tokens) for answer in answers]
    if missing := sum(value is None for value in found):
        raise RuntimeError(f"{question}: {missing} answers without a verdict; see {STATE}/calls.sqlite")
    return np.array(found, float)


def _say(done: int, total: int) -> None:
    if done % 100 == 0 or done == total:
        print(f"  {done} of {total}", flush=True)


def platt(leans: Scores, labels: Labels) -> tuple[float, float]:
    """Slope and offset at even odds."""
    model = LogisticRegression(C=1e6, class_weight="balanced").fit(leans[:, None], labels)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def calibrated(leans: Scores, labels: Labels, writers: NDArray[np.int64]) -> Scores:
    """P(unsafe) of each item, by slope and offset of the other writers' items."""
    scores = np.zeros(len(leans))
    for writer in set(writers.tolist()):
        out = writers == writer
        slope, offset = platt(leans[~out], labels[~out])
        scores[out] = 1 / (1 + np.exp(-(slope * leans[out] + offset)))
    return scores


def report(who: str, scores: Scores, pairs: Sequence[GoldPair], labels: Labels, threshold: float) -> None:
    """One line: AUROC, balanced accuracy, false-positive rate and recall, with intervals over classes."""
    classes = np.array([pair.class_name for pair in pairs])
    unsafe = scores >= threshold
    rng = np.random.default_rng(0)
    groups = {name: np.flatnonzero(classes == name) for name in sorted(set(classes))}

    def one(index: NDArray[np.int64]) -> list[float]:
        y, u = labels[index], unsafe[index]
        shares = [roc_auc_score(y, scores[index]), balanced_accuracy_score(y, u), u[~y].mean(), u[y].mean()]
        return [float(share) for share in shares]

    draws = [
        one(np.concatenate([groups[name] for name in rng.choice(sorted(groups), len(groups))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    cells = [
        f"{v:.2f} ({a:.2f}-{b:.2f})" for v, a, b in zip(one(np.arange(len(pairs))), low, high, strict=True)
    ]
    print(f"{who:24} at {threshold:.2f}  " + "  ".join(cells))


def by_kind(scores: Scores, pairs: Sequence[GoldPair], threshold: float) -> dict[str, float]:
    """The share called unsafe of each kind of pair."""
    kinds = np.array([pair.kind for pair in pairs])
    return {kind: round(float((scores[kinds == kind] >= threshold).mean()), 2) for kind in sorted(set(kinds))}


def once(pairs: Iterable[GoldPair], field: str) -> list[GoldPair]:
    """The pairs with each query, or each image, once."""
    return list({getattr(pair, field): pair for pair in pairs}.values())


def main() -> None:
    """Ask, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the published sets")
    parser.add_argument("--gold", type=Path, default=GOLD)
    parser.add_argument("--per-question", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    gold = load_gold(args.gold)
    samples = {
        "text_safe": spread(once(gold, "query"), args.per_question),
        "image_safe": spread(once(gold, "evidence"), args.per_question),
        # The joint annotators are asked only where the text alone is safe.
        "pair_safe": spread((pair for pair in gold if not pair.text_unsafe), args.per_question),
    }
    shown = {
        "text_safe": [f"Message: {pair.query}" for pair in samples["text_safe"]],
        "image_safe": [pair.evidence for pair in samples["image_safe"]],
        "pair_safe": [f"{pair.evidence}\nRequest: {pair.query}" for pair in samples["pair_safe"]],
    }
    server = LlamaServer(
        locate(MODEL), model_sha256(MODEL), log=STATE / "llama.log", threads=args.threads, ctx_size=4096
    )
    leans = {}
    with open_cache(STATE / "calls.sqlite") as cache, server:
        for question, items in shown.items():
            print(question, flush=True)
            leans[question] = leanings(Engine(cache, server), server.backend_id, question, items)
    heads = {"text_safe": text_head_scores(args.data, gold, samples["text_safe"])}
    heads["pair_safe"] = pair_head_scores(gold, samples["pair_safe"])
    for question, pairs in samples.items():
        labels = np.array([getattr(pair, question.replace("_safe", "_unsafe")) for pair in pairs])
        writers = np.array([pair.writer for pair in pairs])
        slope, offset = platt(leans[question], labels)
        model = calibrated(leans[question], labels, writers)
        print(f"\n{question}: {len(pairs)} items, {int(labels.sum())} unsafe")
        print(f"calibration:\n  {MODEL}: {{slope: {slope:.2f}, offset: {offset:.2f}}}")
        report("language model", model, pairs, labels, 0.5)
        judges = {"language model": model}
        if question in heads:
            judges |= {"head": heads[question], "mean of both": (model + heads[question]) / 2}
            report("head", heads[question], pairs, labels, 0.5)
            for threshold in (0.4, 0.45, 0.5, 0.55, 0.6):
                report("mean of both", judges["mean of both"], pairs, labels, threshold)
        for who, scores in judges.items():
            print(f"{who}: called unsafe by kind at .5: {json.dumps(by_kind(scores, pairs, 0.5))}")


def text_head_scores(data: Path, gold: Sequence[GoldPair], pairs: Sequence[GoldPair]) -> Scores:
    """P(unsafe) of each query by a head that saw the public sets and the other writers' queries."""
    encoder, sets = load_text_encoder(), load_sets(data)
    scores = np.zeros(len(pairs))
    embedded = {name: encoder.embed(s.texts) for name, s in sets.items() if name != "gold"}
    for writer in sorted({pair.writer for pair in pairs}):
        sets["gold"] = gold_queries(pair for pair in gold if pair.writer != writer)
        embedded["gold"] = encoder.embed(sets["gold"].texts)
        out = [i for i, pair in enumerate(pairs) if pair.writer == writer]
        scores[out] = fit(embedded, sets, sets).scores(encoder.embed([pairs[i].query for i in out]))
    return scores


def pair_head_scores(gold: Sequence[GoldPair], pairs: Sequence[GoldPair]) -> Scores:
    """P(unsafe) of each pair by a head that saw the other writers' pairs."""
    items = [(pair.evidence, pair.query) for pair in gold]
    features = pair_features(load_text_encoder(), items)
    known = dict(zip([pair.id for pair in gold], left_out(gold, features, lambda p: p.writer), strict=True))
    return np.array([known[pair.id] for pair in pairs])


if __name__ == "__main__":
    main()
