"""What the audit finds of flaws that are known: they are planted in a table and looked for.

A finding that misses what was planted says little by being silent elsewhere; one that speaks where nothing
was planted says little at all. So flips of labels, an annotator that tells nothing, giveaways and leaks are
planted one at a time, and beside them the table is looked at as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from pipeline.annotators.base import Vote
from pipeline.annotators.reliability import posteriors
from pipeline.audit.features import number_probabilities, text_probabilities
from pipeline.audit.judging import Bools, Floats, Ints, auc
from pipeline.audit.leaks import masked, near_queries_across
from pipeline.audit.noise import (
    ideal_recall,
    noise_rate,
    recall_at_top,
    suspects,
    vote_evidence,
)
from pipeline.audit.probes import SOURCE_PARTS, probes

__all__ = ["GIVEAWAYS", "CleanSet", "Outcome", "clean_set", "self_test"]

FLIPS = 0.05
FLIPS_BY_LABEL = (0.02, 0.10)
"""Of safe and of unsafe labels."""
TIED = 0.7
"""Share of the unsafe rows that get what gives them away."""
ACROSS = 0.02
"""Share of the test rows that get what is in train."""
PANEL = (0.75, 0.80, 0.85, 0.90)
"""How often the annotators of a simulated panel are right."""
TEST = 0.2
GIVEAWAYS = {"query length", "opening words", "template", *SOURCE_PARTS, "source and format together"}
"""The probes that should find nothing. The query's own words may well carry the label."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found of one thing that was planted; None where a figure does not apply.

    Attributes:
        planted: what was planted; `nothing` where the table was left as it is.
        found_by: what looked for it.
        rows: rows, images or items looked at.
        amount: share of them that was changed.
        recall: share of what was planted that was found; of labels, among the first tenth of the suspects.
        ideal: the recall that features of this AUC allow at best.
        estimate: estimated share of wrong labels, to be held against `amount`.
        low: its 95 % interval.
        high: its other end.
        auc: of the features that suspects come from, against the true labels; of the probe that named it.
        named: whether it was named; of nothing planted: whether anything was.
        reason: why figures are missing, or what was named.
    """

    planted: str
    found_by: str
    rows: int
    amount: float
    recall: float | None = None
    ideal: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    auc: float | None = None
    named: bool | None = None
    reason: str = ""


@dataclass(frozen=True)
class CleanSet:
    """A dataset without flaws.

    Attributes:
        rows: as `self_test` takes them.
        images: features of each image, images x numbers.
        image_ids: the image of each row of `images`.
    """

    rows: pd.DataFrame
    images: Floats
    image_ids: list[str]


def self_test(
    rows: pd.DataFrame, seed: int = 0, images: Floats | None = None, image_ids: Sequence[str] = ()
) -> list[Outcome]:
    """Plant known flaws in copies of a table and look for them.

    Args:
        rows: with `type`, `query` and `image`. Used where there: `image_safe`, `split`, `scene`,
            `contrast_square` and the parts of `SOURCE_PARTS`; a table without a split is split at random.
        seed: of everything drawn.
        images: features of images, for suspects of their labels; None: there are none.
        image_ids: the image of each row of `images`.

    Returns:
        First what is found in the table as it is, then a row or more for each thing planted.
    """
    table = _completed(rows, seed)
    unsafe = (table["type"] != "SSS").to_numpy(bool)
    found = _untouched(table, unsafe, seed)
    found += _flipped_pairs(table, unsafe, seed)
    if images is not None:
        found.append(_flipped_images(table, images, image_ids, seed))
    found += _flipped_under_votes(table, unsafe, seed)
    found += [_bad_annotator(unsafe, name, seed) for name in ("always safe", "random")]
    found += _giveaways(table, unsafe, seed)
    return [*found, _near_queries(table, seed), _shared_images(table, seed)]


def _completed(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    table = rows.reset_index(drop=True).copy()
    for name in ("scene", "contrast_square", *SOURCE_PARTS):
        blank: Any = 0 if name == "bytes" else ""
        table[name] = table[name].fillna(blank) if name in table else blank
    table["image_id"] = table["image"].astype(str)
    if "image_safe" not in table:
        table["image_safe"] = table["type"].str.startswith("S")
    if "split" not in table or table["split"].isna().all():
        names = table["image_id"].unique()
        test = np.random.default_rng([seed, 1]).random(len(names)) < TEST
        table["split"] = table["image_id"].map(dict(zip(names, np.where(test, "test", "train"), strict=True)))
    return table


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    names = ("type", "query", "scene", "contrast_square", "image_id", "image_safe", *SOURCE_PARTS)
    columns = [table[name].tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _untouched(table: pd.DataFrame, unsafe: Bools, seed: int) -> list[Outcome]:
    n = len(table)
    told = [p for p in probes(_records(table), seed, GIVEAWAYS) if p.grouped is not None]
    named = [f"{p.probe}: {p.target}" for p in told if p.named]
    worst = max((p.grouped for p in told if p.grouped is not None), default=None)
    pairs, shared = _pairs_across(table), _images_across(table)
    _, families = posteriors(_panel(unsafe, PANEL, seed))
    doubted = [f.family for f in families if f.finding]
    rate = noise_rate(unsafe, text_probabilities(table["query"].tolist(), unsafe, seed=seed), seed=seed)
    return [
        Outcome("nothing", "probes", n, 0.0, auc=worst, named=bool(named), reason="; ".join(named)),
        Outcome("nothing", "near-duplicate queries", n, 0.0, named=bool(pairs)),
        Outcome("nothing", "images on both sides", n, 0.0, named=bool(shared)),
        Outcome("nothing", "reliability", n, 0.0, named=bool(doubted), reason="; ".join(doubted)),
        Outcome(
            "nothing", "noise by query", n, 0.0,
            estimate=rate.rate, low=rate.low, high=rate.high, auc=rate.auc, reason=rate.reason,
        ),
    ]  # fmt: skip


def _flipped(labels: Bools, shares: tuple[float, float], seed: int) -> tuple[Bools, Bools]:
    """Labels of which a share of the safe and of the unsafe is flipped, and which."""
    random = np.random.default_rng([seed, 2])
    wrong = np.zeros(len(labels), bool)
    for side in (False, True):
        rows = np.flatnonzero(labels == side)
        wrong[random.choice(rows, round(shares[side] * len(rows)), replace=False)] = True
    return labels ^ wrong, wrong


def _flipped_pairs(table: pd.DataFrame, unsafe: Bools, seed: int) -> list[Outcome]:
    found = []
    for what, shares in (
        ("labels of pairs flipped", (FLIPS, FLIPS)),
        ("labels of pairs flipped, unsafe ones more", FLIPS_BY_LABEL),
    ):
        given, wrong = _flipped(unsafe, shares, seed)
        p = text_probabilities(table["query"].tolist(), given, seed=seed)
        found.append(_of_flips(what, "noise by query", unsafe, given, wrong, p, seed))
    return found


def _flipped_images(table: pd.DataFrame, images: Floats, image_ids: Sequence[str], seed: int) -> Outcome:
    safe = dict(zip(table["image_id"], table["image_safe"], strict=True))
    used = [i for i, name in enumerate(image_ids) if name in safe]
    unsafe = np.array([not safe[image_ids[i]] for i in used], bool)
    given, wrong = _flipped(unsafe, (FLIPS, FLIPS), seed)
    p = number_probabilities(images[used], given, seed=seed)
    return _of_flips("labels of images flipped", "noise by image", unsafe, given, wrong, p, seed)


def _of_flips(
    planted: str, found_by: str, unsafe: Bools, given: Bools, wrong: Bools, p: Floats, seed: int
) -> Outcome:
    rate = noise_rate(given, p, seed=seed)
    value = auc(unsafe, p[:, 1])
    told = None if math.isnan(value) else round(value, 3)
    ideal = None if told is None else ideal_recall(value, FLIPS, share=float(unsafe.mean()), seed=seed)
    recall = recall_at_top(suspects(given, p), wrong)
    return Outcome(
        planted, found_by, len(given), _share(wrong), _round(recall), _round(ideal),
        rate.rate, rate.low, rate.high, told, reason=rate.reason,
    )  # fmt: skip


def _flipped_under_votes(table: pd.DataFrame, unsafe: Bools, seed: int) -> list[Outcome]:
    """The votes are of the truth, and labels were changed after them."""
    given, wrong = _flipped(unsafe, (FLIPS, FLIPS), seed)
    votes = vote_evidence(_panel(unsafe, PANEL, seed), [str(i) for i in range(len(unsafe))])
    p = text_probabilities(table["query"].tolist(), given, seed=seed)
    what = "labels of pairs flipped, under votes"
    return [
        Outcome(what, name, len(given), _share(wrong), _round(recall_at_top(found, wrong)))
        for name, found in (
            ("votes", suspects(given, votes=votes)),
            ("votes and query", suspects(given, p, votes)),
        )
    ]


def _panel(unsafe: Bools, right: Sequence[float], seed: int) -> list[Vote]:
    random = np.random.default_rng([seed, 3])
    said = {f"panel {i + 1}": unsafe ^ (random.random(len(unsafe)) >= r) for i, r in enumerate(right)}
    return [v for family, values in said.items() for v in _votes(family, values)]


def _votes(family: str, unsafe: Bools) -> list[Vote]:
    return [
        Vote(str(i), "pair_safe", family, family, "ok", "unsafe" if u else "safe", float(u))
        for i, u in enumerate(unsafe.tolist())
    ]


def _bad_annotator(unsafe: Bools, name: str, seed: int) -> Outcome:
    n = len(unsafe)
    says = np.zeros(n, bool) if name == "always safe" else np.random.default_rng([seed, 4]).random(n) < 0.5
    _, families = posteriors([*_panel(unsafe, PANEL, seed), *_votes("planted", says)])
    findings = {f.family: f.finding for f in families}
    others = [
        f"{family} {finding}" for family, finding in findings.items() if finding and family != "planted"
    ]
    share = round(1 / len(findings), 4)
    reason = "; ".join([findings["planted"], *others]).strip("; ")
    named = bool(findings["planted"]) and not others
    return Outcome(f"an annotator that is {name}", "reliability", n, share, named=named, reason=reason)


def _giveaways(table: pd.DataFrame, unsafe: Bools, seed: int) -> list[Outcome]:
    random = np.random.default_rng([seed, 5])
    rows = unsafe & (random.random(len(table)) < TIED)
    names = table.loc[unsafe, "image_id"].unique()
    chosen = set(names[random.random(len(names)) < TIED])
    pictures = table["image_id"].isin(chosen).to_numpy(bool)
    queries = ("In a word or two, " + table["query"]).where(rows, table["query"])
    found = []
    for planted, probe, column, values, changed in (
        ("a file format of unsafe pairs", "extension", "extension", "webp", pictures),
        ("an image size of unsafe pairs", "size", "size", "777x555", pictures),
        ("a template of unsafe pairs", "template", "scene", "planted", rows),
        ("an opening of unsafe pairs", "opening words", "query", queries, rows),
    ):
        changed_table = table.copy()
        changed_table[column] = changed_table[column].where(~changed, values)
        told = [p for p in probes(_records(changed_table), seed, only={probe}) if p.grouped is not None]
        named = [p for p in told if p.named]
        best = max((max(p.plain or 0.0, p.grouped or 0.0) for p in named or told), default=None)
        found.append(
            Outcome(
                planted, f"probe of {probe}", len(table), _share(changed), auc=best, named=bool(named),
                reason="; ".join(p.target for p in named),
            )
        )  # fmt: skip
    return found


def _near_queries(table: pd.DataFrame, seed: int) -> Outcome:
    """A query of train, with one word more, in test."""
    random = np.random.default_rng([seed, 6])
    places, donors = _across(table, random)
    changed = table.copy()
    queries = table["query"].to_numpy(object)
    changed.loc[places, "query"] = [f"{queries[i]} today" for i in donors]
    pairs = set(_pairs_across(changed))
    hit = sum((int(i), int(j)) in pairs for i, j in zip(donors, places, strict=True))
    return _leak("near-duplicate queries across the split", "near-duplicate queries", table, len(places), hit)


def _shared_images(table: pd.DataFrame, seed: int) -> Outcome:
    """An image of train in test."""
    random = np.random.default_rng([seed, 7])
    places, donors = _across(table, random)
    changed = table.copy()
    images = table["image_id"].to_numpy(object)
    changed.loc[places, "image_id"] = images[donors]
    shared = _images_across(changed)
    hit = sum(images[i] in shared for i in donors)
    return _leak("images on both sides of the split", "images on both sides", table, len(places), hit)


def _across(table: pd.DataFrame, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Rows of test to change, and the row of train that each is to be like."""
    train, test = (np.flatnonzero((table["split"] == "train").to_numpy() == side) for side in (True, False))
    number = min(max(1, round(ACROSS * len(test))), len(test), len(train))
    return (
        np.sort(random.choice(test, number, replace=False)).astype(np.int64),
        random.choice(train, number, replace=False).astype(np.int64),
    )


def _leak(planted: str, found_by: str, table: pd.DataFrame, number: int, hit: int) -> Outcome:
    if not number:
        return Outcome(planted, found_by, len(table), 0.0, reason="one side of the split is empty")
    recall = round(hit / number, 4)
    return Outcome(planted, found_by, len(table), round(number / len(table), 4), recall, named=hit > 0)


def _pairs_across(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Places of near-duplicate queries, the one of train first."""
    train = (table["split"] == "train").to_numpy()
    sides = [np.flatnonzero(train), np.flatnonzero(~train)]
    texts = [masked(query, "") for query in table["query"]]
    found = near_queries_across(*([texts[i] for i in side] for side in sides))
    return [(int(sides[0][p.train]), int(sides[1][p.test])) for p in found]


def _images_across(table: pd.DataFrame) -> set[str]:
    sides = table.assign(train=table["split"] == "train").groupby("image_id")["train"].nunique()
    return set(sides.index[sides > 1])


def _share(changed: Bools) -> float:
    return round(float(changed.mean()), 4)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


_OPENINGS = (
    "Could you tell me", "Please explain", "I would like to know", "Help me understand", "Tell me",
    "Can you describe", "I wonder", "Show me", "Let me know", "My neighbour asks",
)  # fmt: skip
_FRAMES = (
    "how to {verb} the {look} {thing} and the {look2} {thing2} near the {place} {time} {way}",
    "why people {verb} a {look} {thing} beside some {look2} {thing2} at the {place} {time} {way}",
    "whether we {verb} this {look} {thing} before that {look2} {thing2} in the {place} {time} {way}",
    "when you {verb} every {look} {thing} with another {look2} {thing2} by the {place} {time} {way}",
    "who may {verb} our {look} {thing} like their {look2} {thing2} around the {place} {time} {way}",
    "where they {verb} any {look} {thing} for one {look2} {thing2} behind the {place} {time} {way}",
)
_ENDS = ("", "for a school project", "as in the picture", "step by step", "in short", "for my notes",
         "with an example", "for the club", "once more", "if possible")  # fmt: skip
_WORDS = {
    "verb": "carry clean paint repair lift sort wrap weigh sketch label polish stack count measure borrow "
    "move test store fold open close hang frame trim wash dry mend rent share photograph",
    "look": "red blue green yellow small large round square heavy light old new wooden metal paper glass "
    "striped plain soft hard bright dark tall short wide narrow quiet warm cold smooth",
    "thing": "chair table lamp basket bottle kettle blanket ladder bucket clock mirror drawer bicycle "
    "suitcase umbrella notebook pencil teapot cushion curtain shelf vase candle broom toolbox "
    "helmet guitar drum kite puzzle",
    "place": "garden kitchen library station harbour market museum bakery school workshop garage balcony "
    "meadow bridge tower square office theatre stadium farm orchard river lake beach forest "
    "park cafe hotel airport studio",
    "time": "today tomorrow tonight weekly daily monthly early late soon later often rarely always "
    "sometimes twice thrice outdoors indoors upstairs downstairs abroad nearby together alone "
    "first last again finally usually mostly",
    "way": "slowly quickly carefully gently neatly calmly safely cheaply easily properly evenly firmly "
    "loosely quietly loudly kindly simply exactly roughly fully partly barely nearly gladly "
    "eagerly patiently steadily smoothly tidily warmly",
}
_SLOTS = ("verb", "look", "look2", "thing", "thing2", "place", "time", "way")
_KINDS = ("SSS", "SSU", "SUU", "USU", "UUU")
_KIND_SHARES = (0.5, 0.125, 0.125, 0.125, 0.125)


def clean_set(n: int, seed: int = 0, auc: float = 0.95, image_auc: float = 0.98) -> CleanSet:
    """Make a dataset of harmless texts in which nothing gives the label away but what is meant to.

    The label of a pair is carried by the words of its query: each word is likelier on one side by a factor of
    its own, so that the best that can be made of a query has about the AUC wanted; a model that has to learn
    the words from some thousand queries comes to a little less. The label of an image is carried by its
    features, the AUC being that of their best sum. Template, opening, length, format, size and source are
    drawn without a look at labels. Images belong to one side of the split.

    Args:
        n: pairs.
        seed: of everything drawn.
        auc: of the query's words for the pair's label, .5 to 1.
        image_auc: of the image's features for its label, .5 to 1.
    """
    random = np.random.default_rng([seed, 0])
    kinds = random.choice(_KINDS, n, p=_KIND_SHARES)
    scenes = random.integers(0, len(_FRAMES) * len(_ENDS), n)
    queries = _queries(kinds != "SSS", scenes, auc, random)
    image = np.empty(n, np.int64)
    safe_image = np.array([kind.startswith("S") for kind in kinds], bool)
    pictures = 0
    for side in (True, False):
        rows = np.flatnonzero(safe_image == side)
        own = max(1, len(rows) // 2)
        image[rows] = pictures + random.integers(0, own, len(rows))
        pictures += own
    names = [f"image {i}" for i in range(pictures)]
    test = random.random(pictures) < TEST
    sizes = random.choice(["640x480", "800x600", "512x512", "1024x768"], pictures)
    table = pd.DataFrame(
        {
            "id": np.arange(n),
            "image": [names[i] for i in image],
            "query": queries,
            "type": kinds,
            "category": "example",
            "subcategory": "example",
            "image_safe": safe_image,
            "image_safety_label": np.where(safe_image, 0, 1),
            "split": np.where(test[image], "test", "train"),
            "scene": [f"template {i}" for i in scenes],
            "contrast_square": "",
            "source_kind": random.choice(["folder", "drawing"], pictures)[image],
            "generator": random.choice(["", "a", "b"], pictures)[image],
            "licence": random.choice(["CC0-1.0", "CC-BY-4.0"], pictures)[image],
            "source_package": random.choice(["p", "q", "r"], pictures)[image],
            "extension": random.choice([".jpg", ".png"], pictures)[image],
            "size": sizes[image],
            "bytes": random.integers(20_000, 200_000, pictures)[image],
        }
    )
    unsafe = np.zeros(pictures, bool)
    unsafe[image[~safe_image]] = True
    features = random.standard_normal((pictures, len(_SLOTS)))
    features += np.where(unsafe, 0.5, -0.5)[:, None] * _distance(image_auc) / math.sqrt(len(_SLOTS))
    return CleanSet(table, features, names)


def _queries(unsafe: Bools, scenes: Ints, value: float, random: np.random.Generator) -> list[str]:
    n = len(unsafe)
    deviation = _distance(value) / math.sqrt(len(_SLOTS))
    # Levels of a normal distribution, so that every seed's words tell as much.
    chosen: dict[str, list[str]] = {}
    for slot in _SLOTS:
        words = np.array(_WORDS[slot.rstrip("2")].split())
        levels = [NormalDist().inv_cdf((i + 0.5) / len(words)) for i in range(len(words))]
        tilt = random.permutation(np.array(levels)) * deviation
        drawn = np.empty(n, object)
        for side in (True, False):
            weight = np.exp(tilt / 2 if side else -tilt / 2)
            rows = np.flatnonzero(unsafe == side)
            drawn[rows] = random.choice(words, len(rows), p=weight / weight.sum())
        chosen[slot] = drawn.tolist()
    openings = random.choice(_OPENINGS, n)
    found = []
    for i, scene in enumerate(scenes.tolist()):
        frame, end = _FRAMES[scene % len(_FRAMES)], _ENDS[scene // len(_FRAMES)]
        text = frame.format(**{slot: chosen[slot][i] for slot in _SLOTS})
        found.append(" ".join(filter(None, (str(openings[i]), text, end))) + "?")
    return found


def _distance(value: float) -> float:
    """Of the means of two normal distributions of variance 1 that an AUC tells apart."""
    return math.sqrt(2) * NormalDist().inv_cdf(min(max(value, 0.5), 1 - 1e-9))
