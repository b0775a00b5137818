"""What `holisafe safellava` does."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows.figures import percent_cell
from pipeline.extras import needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.safellava.checkpoints import MetricLog
    from pipeline.safellava.evaluate import Evaluation
    from pipeline.safellava.figures import Figures
    from pipeline.safellava.folds import Groups
    from pipeline.workspace import Workspace

__all__ = ["evaluate_models", "fold_dataset", "make_mini", "predict_dataset", "train_model"]

OUT = Console()
LIVE = "dvclive"


def make_mini(out: Path, language: str, grid: int, seed: int) -> None:
    """Write SafeLLaVA-mini, untrained."""
    needs("gguf", "torch", "transformers")
    from pipeline.safellava.mini import build_mini

    model = build_mini(out, language=language, grid=grid, seed=seed)
    many = sum(p.numel() for p in model.parameters())
    OUT.print(
        escape(f"{out}: {many:,} weights; train it with `holisafe safellava train --base {out} --out DIR`"),
        soft_wrap=True,
    )


def train_model(
    dataset: str,
    base: str,
    out: Path,
    config: Path | None,
    variant: str | None,
    ordinary: Path | None,
    changes: Mapping[str, Any],
    *,
    dry_run: bool,
) -> None:
    """Train, or say what it would come to."""
    needs("accelerate", "peft", "torch", "transformers")
    import torch

    from flows.progress import RichProgress
    from pipeline.safellava import train as training
    from pipeline.safellava.checkpoints import JsonlLog
    from pipeline.safellava.examples import (
        answered,
        read_ordinary,
        read_source,
        split,
        told,
        without_held_out,
    )
    from pipeline.safellava.load import load_base
    from pipeline.safellava.pictures import look_at_pictures
    from pipeline.safellava.settings import load_settings

    settings = load_settings(config, variant, **changes)
    fields = ("safety_mode", "safety_head", "safety_loss_weight")
    torch.manual_seed(settings.seed)
    loaded = load_base(
        base,
        dtype=torch.bfloat16 if settings.bf16 else torch.float32,
        **{name: getattr(settings, name) for name in fields},
    )
    classes = len(loaded.model.config.classes)
    # All rows are dealt out, as `eval` does, whichever of them are then trained on.
    source = read_source(dataset, classes, head_only=True)
    others, barred = None, 0
    with RichProgress("safellava") as progress:
        pictures = look_at_pictures(source.images, source.keys, progress)
        pictures.must_decode(dataset)
        sides = split(source, pictures, seed=settings.seed, share=settings.test_share)
        if not settings.head_only_rows:
            sides = answered(sides, dataset)
        if ordinary is not None and settings.ordinary_ratio:
            found = read_ordinary(ordinary, safe=settings.ordinary_safe)
            shown = look_at_pictures(found.images, found.keys, progress)
            shown.must_decode(str(ordinary))
            found, barred = without_held_out(found, shown, sides, pictures)
            others = found, shown
        data = training.prepare(loaded, sides.train, pictures, settings, others)
        if dry_run:
            coming = training.plan(training.learns(loaded, settings), data, settings)
        else:
            with _asked_to_stop() as stop, _live(out) as live:
                done = training.train(
                    loaded,
                    data,
                    settings,
                    out,
                    progress,
                    logs=[JsonlLog(out), *live],
                    stop=stop,
                    about={
                        "dataset": dataset,
                        "base": base,
                        "ordinary": None if ordinary is None else str(ordinary),
                        "trained_images": training.trained_images(sides, pictures, others),
                    },
                )
    if barred:
        OUT.print(f"Ordinary pairs left out, since their picture is held out: {barred:,}")
    for left_out in filter(None, (told([source.left_out]) if source.left_out else "", data.left_out)):
        OUT.print(escape(f"Rows left out: {left_out}"), soft_wrap=True)
    if dry_run:
        for name, value in asdict(coming).items():
            OUT.print(f"{name.replace('_', ' '):<16} {value:,}")
        return
    told_ = ", ".join(f"{name} {value:.4g}" for name, value in done.figures.items())
    OUT.print(
        escape(f"{done.model}: {done.steps:,} steps; {told_ or 'all of them were made before'}"),
        soft_wrap=True,
    )


def predict_dataset(
    dataset: str, model: str, out: Path, limit: int | None, batch: int, max_tokens: int
) -> None:
    """Write a prediction file."""
    from flows.progress import RichProgress
    from pipeline.anyset import open_anyset
    from pipeline.safellava.load import load_model
    from pipeline.safellava.predict import predict, write_answers

    found = open_anyset(dataset)
    if limit is not None:
        found = replace(found, rows=found.rows.head(limit))
    loaded = load_model(model)
    kept = out.with_name(f"{out.name}.partial")
    with RichProgress("safellava") as progress:
        answers = predict(loaded, found, progress, batch=batch, most=max_tokens, keep=kept)
    write_answers(out, found, answers)
    kept.unlink()
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer.status] = counts.get(answer.status, 0) + 1
    OUT.print(
        escape(f"{len(answers):,} rows: " + ", ".join(f"{n:,} {status}" for status, n in counts.items()))
    )
    OUT.print(
        escape(f"{out}: score it with `holisafe bench score {out} --judge refusal --out DIR`"), soft_wrap=True
    )


def fold_dataset(root: Path, dataset: str, out: Path, groups: Groups, seed: int) -> None:
    """Train heads in folds, and show the table."""
    needs("sklearn", "torch", "transformers")
    from flows.progress import RichProgress
    from pipeline.anyset import open_anyset
    from pipeline.encoders import load_image_encoder
    from pipeline.safellava.config import CATEGORIES
    from pipeline.safellava.folds import fold, labelled_images
    from pipeline.safellava.folds_written import folds_head, write_folds

    workspace = _checked(root)
    encoder = load_image_encoder()
    with RichProgress("safellava") as progress:
        labelled = labelled_images(open_anyset(dataset), encoder, len(CATEGORIES), progress, groups)
        folded = fold(labelled, CATEGORIES, seed, progress, workspace)
    write_folds(out, labelled, folded, encoder.identity, seed)
    OUT.print(folds_head(labelled), soft_wrap=True)
    _print_figures(folded.ways)
    OUT.print(escape(f"{out}: folds.json, folds.md, votes.csv, head.npz"), soft_wrap=True)


def evaluate_models(
    root: Path,
    dataset: str,
    models: list[str],
    out: Path,
    seed: int | None,
    test_share: float | None,
    *,
    zero_shot: bool,
    attention: int,
) -> None:
    """Judge heads, and show the table."""
    needs("sklearn", "torch", "transformers")
    from flows.progress import RichProgress
    from pipeline.safellava.evaluate import evaluate
    from pipeline.workspace import Workspace
    from schemas.errors import InputError

    named: dict[str, str] = {}
    for given in models:
        name, _, folder = given.rpartition("=")
        name = name or Path(folder).parent.name or folder
        if name in named:
            raise InputError(f"--model {given}: another one is called {name}; write NAME={folder}")
        named[name] = folder
    workspace = _checked(root) if zero_shot else Workspace(root)
    wanted = ["majority", "regression", *(["zero-shot"] if zero_shot else [])]
    with RichProgress("safellava") as progress:
        found = evaluate(
            dataset, named, workspace, out, progress, seed=seed, test_share=test_share, baselines=wanted
        )
    _show(found)
    pictures = _attentions(dataset, named, out, attention)
    OUT.print(
        escape(f"{out}: " + ", ".join(["evaluation.json", "probabilities.json", *pictures])), soft_wrap=True
    )


def _show(found: Evaluation) -> None:
    OUT.print(
        escape(
            f"{found.test:,} held-out images, {found.train:,} of training; percent with 95 % intervals by "
            "leak group"
        ),
        soft_wrap=True,
    )
    _print_figures(found.results)
    for note in found.notes:
        OUT.print(escape(f"– {note}"), soft_wrap=True)


def _print_figures(results: Mapping[str, Figures]) -> None:
    figures = {"accuracy": "accuracy", "macro_f1": "macro F1", "auc": "AUC, safe or not", "ece": "ECE"}
    head = [Column(label, justify="right") for label in figures.values()]
    table = Table(Column("model", overflow="fold"), *head, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name, one in results.items():
        told = [getattr(one, figure) for figure in figures]
        table.add_row(escape(name), *(percent_cell(f.value, f.low, f.high) for f in told))
    OUT.print(table)


def _attentions(dataset: str, models: Mapping[str, str], out: Path, many: int) -> list[str]:
    """Pictures of the attention to the token, of the first unsafe rows."""
    from pipeline.anyset import open_anyset
    from pipeline.safellava.attention import attention, draw
    from pipeline.safellava.examples import is_llava
    from pipeline.safellava.load import load_model
    from pipeline.safellava.pictures import look_at_pictures
    from pipeline.safellava.processor import UnusableTextError
    from pipeline.workspace import Silent

    if not many:
        return []
    if is_llava(dataset):  # it has no table to take rows from
        return []
    rows = open_anyset(dataset)
    some = rows.rows[rows.rows["image_safety_label"] > 0].head(many)
    pictures = look_at_pictures(rows.pictures, sorted(some["image"].unique()), Silent())
    names = []
    for name, folder in models.items():
        loaded = load_model(folder, attn_implementation="eager")
        if not loaded.model.config.safety_tokens:
            continue
        for key, query, id_ in zip(some["image"], some["query"], some["id"], strict=True):
            try:
                seen = attention(loaded, pictures.open(key), query)
            except UnusableTextError as error:
                OUT.print(escape(f"No picture of row {id_}: its query {error}"))
                continue
            names.append(f"attention-{name}-{id_}.png")
            draw(seen, out / names[-1], f"{name}, row {id_}")
    return names


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends a training after its step, with a checkpoint; the second one ends it at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True
        Console(stderr=True).print("stopping after this step; press again to stop at once")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _live(out: Path) -> Iterator[list[MetricLog]]:
    """DVCLive's files below `out`, where the package is there."""
    from importlib.util import find_spec

    from flows.live_log import LiveLog

    if find_spec("dvclive") is None:
        yield []
        return
    log = LiveLog(out / LIVE)
    try:
        yield [log]
    finally:
        log.end()


def _checked(root: Path) -> Workspace:
    """The workspace whose encoder judges untrained; what is wrong with it is told before the work begins."""
    from pipeline.workspace import Workspace

    workspace = Workspace(root)
    workspace.check()
    return workspace
