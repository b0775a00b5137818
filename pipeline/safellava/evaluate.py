"""Is the head any good? Models and baselines on the same held-out images, each figure with an interval."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.safellava.baselines import majority, pooled_features, regression, zero_shot
from pipeline.safellava.examples import Example, read_source, split, told
from pipeline.safellava.figures import Figures, Floats, Ints, figures
from pipeline.safellava.load import Loaded, load_model
from pipeline.safellava.pictures import Pictures, look_at_pictures
from pipeline.safellava.predict import probabilities
from pipeline.safellava.settings import TrainSettings
from pipeline.safellava.train import ABOUT
from pipeline.store import write_json
from pipeline.workspace import Progress, Workspace
from schemas.errors import InputError, validated

__all__ = ["Evaluation", "evaluate"]

_DEALING = ("seed", "test_share")


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        place: the dataset.
        seed: of the split and the resamples.
        test_share: of the leak groups, where the dataset names no sides.
        train: images that baselines learned from.
        test: images that were judged.
        left_out: rows that were not used.
        results: by the name of model or baseline.
        notes: what a reader has to know.
    """

    place: str
    seed: int
    test_share: float
    train: int
    test: int
    left_out: str
    results: dict[str, Figures]
    notes: list[str]


def evaluate(
    place: str,
    models: Mapping[str, str],
    workspace: Workspace,
    out: Path,
    progress: Progress,
    *,
    seed: int | None = None,
    test_share: float | None = None,
    baselines: Sequence[str] = ("majority", "regression", "zero-shot"),
) -> Evaluation:
    """Judge models on the held-out images of a dataset; write `evaluation.json` and `probabilities.json`.

    Args:
        place: a dataset in HoliSafe's format, or its LLaVA export.
        models: folders by name; the first one's tower gives the regression its features.
        workspace: whose encoder judges without training.
        out: a folder.
        progress: told of images.
        seed: of the split and the resamples; None: that of the models' training.
        test_share: of the leak groups of a class that are held out; None: as in training.
        baselines: which of the three.

    Raises:
        InputError: naming the file, the field and the mend; also where a model learned from a held-out image,
            or where trainings were dealt out differently and nobody said which images to judge on.
    """
    trained = _settings(models)
    seed = int(_agreed(trained, "seed", seed))
    test_share = _agreed(trained, "test_share", test_share)
    loaded = {name: load_model(folder) for name, folder in models.items()}
    first = next(iter(loaded.values()))
    names = first.model.config.classes
    for name, one in loaded.items():
        if one.model.config.classes != names:
            raise InputError(f"{models[name]}: safety_categories: not those of {models[next(iter(models))]}")
    source = read_source(place, len(names), head_only=True)
    pictures = look_at_pictures(source.images, source.keys, progress)
    pictures.must_decode(place)
    sides = split(source, pictures, seed=seed, share=test_share)
    train, test = _images(sides.train), _images(sides.test)
    notes = _crossing(train, test, sides.groups)
    for name, folder in models.items():
        _not_seen(name, folder, test, pictures)
    labels, groups = _arrays(test, sides.groups)
    keys = list(test)
    probs: dict[str, Floats] = {
        name: np.asarray([row.numpy() for row in probabilities(one, keys, pictures, progress)], np.float64)
        for name, one in loaded.items()
    }
    probs |= _baselines(
        first, train, test, sides.groups, pictures, names, workspace, progress, seed, baselines
    )
    results = {
        name: figures(p / p.sum(1, keepdims=True), labels, groups, names, seed=seed)
        for name, p in probs.items()
    }
    left_out = told([source.left_out])
    found = Evaluation(place, seed, test_share, len(train), len(test), left_out, results, notes)
    write_json(out / "evaluation.json", asdict(found))
    rows = {key: {"label": int(label)} for key, label in test.items()}
    for name, p in probs.items():
        for key, row in zip(keys, p, strict=True):
            rows[key][name] = [round(float(v), 6) for v in row]  # type: ignore[assignment]
    write_json(out / "probabilities.json", rows)
    return found


def _images(examples: Sequence[Example]) -> dict[str, int]:
    """The label of each image, in order of the keys: where rows differ, the commonest."""
    votes: dict[str, Counter[int]] = {}
    for e in examples:
        if e.image is not None:
            votes.setdefault(e.image, Counter())[e.label] += 1
    return {key: min(votes[key].items(), key=lambda item: (-item[1], item[0]))[0] for key in sorted(votes)}


def _arrays(images: Mapping[str, int], groups: Mapping[str, int]) -> tuple[Ints, Ints]:
    return np.array(list(images.values()), np.int64), np.array([groups[key] for key in images], np.int64)


def _crossing(train: Mapping[str, int], test: Mapping[str, int], groups: Mapping[str, int]) -> list[str]:
    both = {groups[key] for key in train} & {groups[key] for key in test}
    many = sum(groups[key] in both for key in test)
    return [f"{many} of {len(test)} held-out images look like one of training"] if both else []


def _about(path: Path) -> Mapping[str, Any]:
    """What a training left beside its model; empty where nothing is."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}; train the model again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: no JSON object; train the model again")
    return found


def _settings(models: Mapping[str, str]) -> dict[Path, TrainSettings]:
    """How the split was dealt out in the training of each model that says so."""
    found = {}
    for path in (Path(folder) / ABOUT for folder in models.values()):
        said = _about(path).get("settings")
        if isinstance(said, dict):  # other fields may be of another version
            found[path] = validated(TrainSettings, {k: said[k] for k in _DEALING if k in said}, path)
    return found


def _agreed(trained: Mapping[Path, TrainSettings], field: str, given: float | None) -> float:
    """What was given; else what all trainings had."""
    if given is not None:
        return given
    first: dict[float, Path] = {}
    for path, settings in trained.items():
        first.setdefault(getattr(settings, field), path)
    if len(first) > 1:
        told = ", ".join(f"{value} in {path}" for value, path in first.items())
        raise InputError(
            f"settings.{field}: {told}; models are judged on the same images: train them with the same "
            f"{field}, judge them one by one, or give --{field.replace('_', '-')}"
        )
    return float(next(iter(first), getattr(TrainSettings(), field)))


def _not_seen(name: str, folder: str, test: Mapping[str, int], pictures: Pictures) -> None:
    path = Path(folder) / ABOUT
    seen = set(_about(path).get("trained_images", ()))
    again = [key for key in test if pictures.sha256[key] in seen]
    if again:
        raise InputError(
            f"{path}: trained_images: {name} learned from {len(again)} of {len(test)} held-out images, such "
            f"as {again[0]}; give --seed and --test-share as in its training, or another dataset"
        )


def _baselines(
    first: Loaded,
    train: Mapping[str, int],
    test: Mapping[str, int],
    groups: Mapping[str, int],
    pictures: Pictures,
    names: Sequence[str],
    workspace: Workspace,
    progress: Progress,
    seed: int,
    wanted: Sequence[str],
) -> dict[str, Floats]:
    labels, group = _arrays(train, groups)
    found: dict[str, Any] = {}
    if "majority" in wanted:
        found["majority"] = majority(labels, len(test), len(names))
    if "regression" in wanted and len(set(labels.tolist())) > 1:
        x, y = (pooled_features(first, list(side), pictures, progress) for side in (train, test))
        found["regression"] = regression(x, labels, group, y, len(names), seed)
    if "zero-shot" in wanted:
        found["zero-shot"] = zero_shot(list(test), pictures, workspace, names, progress)
    return found
