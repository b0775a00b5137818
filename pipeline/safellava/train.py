"""Training: LoRA on the language model; projector, token and head whole; the tower frozen unless asked.

A checkpoint holds weights, optimizer, random states and the step; the order of rows and the learning rates
are functions of the step. So a training that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.encoders._common import quiet
from pipeline.safellava import checkpoints
from pipeline.safellava.checkpoints import MetricLog
from pipeline.safellava.examples import IGNORED, Example, Source, Split, even, order, told
from pipeline.safellava.load import Loaded
from pipeline.safellava.pictures import Pictures
from pipeline.safellava.processor import Encoded, UnusableTextError, fit_processor
from pipeline.safellava.settings import TrainSettings
from pipeline.store import replace_directory, sha256_text, write_json
from pipeline.workspace import Progress
from schemas.errors import InputError

__all__ = [
    "MODEL",
    "Data",
    "Plan",
    "Row",
    "Trained",
    "learns",
    "plan",
    "prepare",
    "rate_at",
    "train",
    "trained_images",
]

MODEL = "model"
ABOUT = "training.json"
_NEW = ("safety_token", "safety_head", "multi_modal_projector")
FREE = {"batch", "accumulate", "gradient_checkpointing", "checkpoint_every"}
"""Settings that a training may go on with otherwise: rows in a step stay what they were."""


@dataclass(frozen=True)
class Data:
    """Rows as they are trained on.

    Attributes:
        answered: rows with an image label and a response, of the side train.
        head_only: those with a label alone.
        ordinary: ordinary pairs.
        left_out: rows that are not used, by reason.
    """

    answered: tuple[Row, ...]
    head_only: tuple[Row, ...]
    ordinary: tuple[Row, ...]
    left_out: str

    @property
    def all(self) -> tuple[Row, ...]:
        """Every row, in the order that `order` numbers them."""
        return (*self.answered, *self.head_only, *self.ordinary)

    def order(self, settings: TrainSettings, epoch: int) -> list[int]:
        """The rows of an epoch, as places in `all`."""
        whole, rest, ratio = len(self.answered), len(self.head_only), settings.head_only_ratio
        judged = rest if ratio is None or not whole else round(ratio * whole)
        ordinary = round(settings.ordinary_ratio * (whole + judged))
        return order(whole, [(rest, judged), (len(self.ordinary), ordinary)], settings.seed, epoch)


@dataclass(frozen=True, slots=True)
class Row:
    """A row as token ids, with where its image is."""

    encoded: Encoded
    pictures: Pictures
    image: str | None
    label: int


@dataclass(frozen=True)
class Plan:
    """What a training comes to.

    Attributes:
        answered: rows with an image label and a response in each epoch.
        head_only: rows in each epoch that train the head alone.
        ordinary: ordinary pairs in each epoch.
        steps_an_epoch: steps of the optimizer.
        steps: of them in all.
        trained: weights that learn.
        frozen: weights that do not.
        longest: tokens of the longest row.
    """

    answered: int
    head_only: int
    ordinary: int
    steps_an_epoch: int
    steps: int
    trained: int
    frozen: int
    longest: int


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        model: the folder of the model.
        steps: that were made in all.
        figures: of the last step; empty where none was made now.
    """

    model: Path
    steps: int
    figures: Mapping[str, float]


def prepare(
    base: Loaded,
    safety: Sequence[Example],
    pictures: Pictures,
    settings: TrainSettings,
    ordinary: tuple[Source, Pictures] | None = None,
) -> Data:
    """Rows as token ids.

    Raises:
        InputError: when nothing is left of them.
    """
    left_out: dict[str, int] = {}

    def rows(examples: Sequence[Example], shown: Pictures) -> tuple[Row, ...]:
        made = []
        for e in examples:
            try:
                made.append(Row(_encoded(base, e, settings.max_tokens), shown, e.image, e.label))
            except UnusableTextError as error:
                left_out[str(error)] = left_out.get(str(error), 0) + 1
        return tuple(made)

    answered = rows([e for e in safety if e.response is not None], pictures)
    head_only = rows([e for e in safety if e.response is None], pictures)
    others = rows(ordinary[0].examples, ordinary[1]) if ordinary and settings.ordinary_ratio else ()
    if not answered and not head_only:
        raise InputError(f"no row can be trained on ({told([left_out])}); raise max_tokens")
    return Data(answered, head_only, others, told([left_out]))


def _encoded(base: Loaded, example: Example, most: int) -> Encoded:
    if example.response is None:
        return base.prompter.encode_image()
    return base.prompter.encode(example.query, example.response, most, image=example.image is not None)


def learns(loaded: Loaded, settings: TrainSettings) -> nn.Module:
    """The model with its adapters: only what learns asks for gradients, and it is float32."""
    model: Any = loaded.model
    model.requires_grad_(False)
    if settings.language == "lora":
        from peft import LoraConfig, get_peft_model

        inside = model.model.language_model
        linear = [n for n, m in inside.named_modules() if isinstance(m, nn.Linear)]
        lora = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=[f"model.language_model.{name}" for name in linear],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        whole = any(part in name for part in _NEW) or (settings.train_tower and "vision_tower" in name)
        parameter.requires_grad_(whole or "lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    made: nn.Module = model
    return made


def plan(model: nn.Module, data: Data, settings: TrainSettings) -> Plan:
    """What a training would come to."""
    epoch = data.order(settings, 0)
    ends = len(data.answered), len(data.answered) + len(data.head_only)
    an_epoch = math.ceil(len(epoch) / (settings.batch * settings.accumulate))
    steps = max(1, round(settings.epochs * an_epoch))
    many = {
        flag: sum(p.numel() for p in model.parameters() if p.requires_grad is flag) for flag in (True, False)
    }
    return Plan(
        ends[0],
        sum(ends[0] <= place < ends[1] for place in epoch),
        sum(place >= ends[1] for place in epoch),
        an_epoch,
        min(steps, settings.max_steps or steps),
        many[True],
        many[False],
        max(len(row.encoded.input_ids) for row in data.all),
    )


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at a step, from 0: it rises, then falls along a cosine to 0."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def train(
    base: Loaded,
    data: Data,
    settings: TrainSettings,
    out: Path,
    progress: Progress,
    *,
    logs: Sequence[MetricLog] = (),
    stop: Callable[[], bool] = lambda: False,
    about: Mapping[str, Any] | None = None,
) -> Trained:
    """Train, and write the model to `out/model`; go on from `out/checkpoint.pt` where there is one.

    Args:
        base: the model; it is changed.
        data: rows.
        settings: what people wrote.
        out: a folder.
        progress: told of each step.
        logs: told of the figures of each step.
        stop: asked after each step; when it says so, a checkpoint is made and the training ends.
        about: what is kept beside the model.

    Raises:
        InputError: when the checkpoint in `out` is of another training.
        KeyboardInterrupt: when it was stopped.
        RuntimeError: when memory is full, or the loss is no number. The last checkpoint stays.
    """
    from accelerate import Accelerator

    torch.manual_seed(settings.seed)
    accelerator = Accelerator(mixed_precision="bf16" if settings.bf16 else "no")
    if accelerator.num_processes > 1:
        raise InputError("a training runs in one process; start it without `accelerate launch`")
    frozen = _weights(base.model)
    model = learns(base, settings)
    coming = plan(model, data, settings)
    said = settings.model_dump(exclude=FREE) | {"rows_a_step": settings.batch * settings.accumulate}
    identity = {"base": frozen, "settings": said, "rows": _identity(data)}
    if settings.gradient_checkpointing:
        base.model.activation_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(_groups(model, settings), weight_decay=settings.weight_decay)
    model, optimizer = accelerator.prepare(model, optimizer)
    found = checkpoints.load(out, identity)
    done = 0
    if found is not None:
        done = found.step
        checkpoints.restore(found, accelerator.unwrap_model(model), optimizer)
    progress.start("train", coming.steps)
    progress.advance(done)
    for log in logs:
        log.begin(done)
    figures: dict[str, float] = {}
    state = _Training(base, data, settings, coming, accelerator, model, optimizer)
    for step in range(done, coming.steps):
        try:
            figures = state.step(step)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_full(error):
                raise
            raise RuntimeError(_full(out, settings, step)) from error
        if not (math.isfinite(figures["loss"]) and math.isfinite(figures["gradient"])):
            raise RuntimeError(
                f"step {step + 1}: the loss or its gradient is no number; lower rate and rate_new. "
                f"{_kept(out)}"
            )
        for log in logs:
            log.log(step + 1, figures)
        progress.advance()
        last = step + 1 == coming.steps
        stopping = not last and stop()
        if last or stopping or (step + 1) % settings.checkpoint_every == 0:
            checkpoints.save(out, step + 1, identity, accelerator.unwrap_model(model), optimizer)
        if stopping:
            raise KeyboardInterrupt
    if not figures and (out / MODEL / ABOUT).is_file():  # all steps were made before
        return Trained(out / MODEL, coming.steps, figures)
    kept = {"settings": settings.model_dump(), "plan": asdict(coming), "left_out": data.left_out}
    _write(base, accelerator.unwrap_model(model), out / MODEL, kept | {"last": figures} | dict(about or {}))
    return Trained(out / MODEL, coming.steps, figures)


@dataclass
class _Training:
    """What a step needs."""

    base: Loaded
    data: Data
    settings: TrainSettings
    plan: Plan
    accelerator: Any
    model: Any
    optimizer: Any

    def __post_init__(self) -> None:
        """Nothing is dealt out yet."""
        self._everything = self.data.all
        self._lengths = [len(row.encoded.input_ids) for row in self._everything]
        self._epoch, self._rows = -1, list[int]()

    def step(self, step: int) -> dict[str, float]:
        """Make one step, counted from 0; return its figures."""
        said = self.settings
        share = rate_at(step, self.plan.steps, said.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * share
        self.model.train()
        # Frozen or not, its batch statistics are those it came with.
        self.base.model.model.vision_tower.eval()
        batches = self._batches(step)
        total = {"loss": 0.0, "next_token": 0.0, "safety": 0.0}
        self.optimizer.zero_grad()
        # Means are over the whole step, so that they do not hang on how it is cut into batches.
        tokens = sum(label != IGNORED for rows in batches for r in rows for label in r.encoded.labels[1:])
        images = sum(_judged(r) for rows in batches for r in rows)
        weight = self.base.model.config.safety_loss_weight
        for rows in batches:
            out = self.model(**self._inputs(rows), num_items_in_batch=max(1, tokens))
            safety = torch.zeros_like(out.next_token_loss)
            if out.safety_loss is not None:
                safety = out.safety_loss * (sum(map(_judged, rows)) / max(1, images))
            loss = out.next_token_loss + weight * safety
            self.accelerator.backward(loss)
            for name, value in (("loss", loss), ("next_token", out.next_token_loss), ("safety", safety)):
                total[name] += float(value.detach())
        norm = self.accelerator.clip_grad_norm_(
            [p for p in self.model.parameters() if p.requires_grad], said.clip
        )
        self.optimizer.step()
        return {
            name: round(value, 6)
            for name, value in (
                *total.items(),
                ("epoch", (step + 1) / self.plan.steps_an_epoch),
                ("rate", said.rate * share),
                ("gradient", float(norm)),
            )
        }

    def _batches(self, step: int) -> list[list[Row]]:
        said = self.settings
        epoch, place = divmod(step, self.plan.steps_an_epoch)
        size = said.batch * said.accumulate
        if epoch != self._epoch:  # of a large set its order takes longer than a step
            rows = self.data.order(said, epoch)
            self._epoch, self._rows = epoch, even(rows, self._lengths, size, said.seed, epoch)
        now = [self._everything[i] for i in self._rows[place * size : (place + 1) * size]]
        return [now[i : i + said.batch] for i in range(0, len(now), said.batch)]

    def _inputs(self, rows: Sequence[Row]) -> dict[str, Any]:
        images = [None if row.image is None else row.pictures.open(row.image) for row in rows]
        made = self.base.prompter.batch([row.encoded for row in rows], images, "right")
        # What is before the first target needs no logits, which are a fifth of a small model's work.
        told = (made["labels"] != IGNORED).any(0).nonzero()
        length = made["labels"].shape[1]
        keep = length - max(0, int(told[0]) - 1) if len(told) else 1
        made["safety_labels"] = torch.tensor([IGNORED if row.image is None else row.label for row in rows])
        if self.settings.bf16 and "pixel_values" in made:
            made["pixel_values"] = made["pixel_values"].to(torch.bfloat16)
        on_device = {name: value.to(self.accelerator.device) for name, value in made.items()}
        return on_device | {"logits_to_keep": keep}


def _judged(row: Row) -> bool:
    """Whether the head learns from it."""
    return row.image is not None and row.label != IGNORED


def _groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """The optimizer's groups of weights, each with its highest rate."""
    rates = {"lora_": settings.rate, "vision_tower": settings.rate_tower, "": settings.rate_new}
    sorted_: dict[str, list[nn.Parameter]] = {mark: [] for mark in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sorted_[next(mark for mark in rates if mark in name)].append(parameter)
    return [
        {"params": some, "lr": rates[mark], "highest": rates[mark]} for mark, some in sorted_.items() if some
    ]


def _identity(data: Data) -> str:
    """Changes with any row."""
    rows = [(r.encoded.input_ids, r.label, r.pictures.sha256.get(r.image or "")) for r in data.all]
    return sha256_text(repr(rows))[:16]


def _write(base: Loaded, model: Any, target: Path, about: Mapping[str, Any]) -> None:
    whole = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with quiet():
        whole.save_pretrained(partial)
    fit_processor(base.processor, whole.config)
    base.processor.save_pretrained(partial)
    write_json(partial / ABOUT, dict(about))
    replace_directory(partial, target)


def trained_images(
    split: Split, pictures: Pictures, ordinary: tuple[Source, Pictures] | None = None
) -> list[str]:
    """The SHA-256 of every image that was trained on, for those who judge later."""
    found = {pictures.sha256[e.image] for e in split.train if e.image is not None}
    if ordinary is not None:
        found |= {ordinary[1].sha256[e.image] for e in ordinary[0].examples if e.image is not None}
    return sorted(found)


def _weights(model: nn.Module) -> str:
    """A fingerprint of the weights that a training begins with and does not make anew: some of each."""
    some = [
        (name, tuple(p.shape), p.detach().flatten()[:8].float().tolist())
        for name, p in model.named_parameters()
        if not any(part in name for part in _NEW)
    ]
    return sha256_text(repr(some))[:16]


def _is_full(error: BaseException) -> bool:
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return full or "can't allocate memory" in str(error)


def _full(out: Path, settings: TrainSettings, step: int) -> str:
    mends = [f"halve batch (it is {settings.batch}) and double accumulate"] if settings.batch > 1 else []
    mends += [] if settings.gradient_checkpointing else ["set gradient_checkpointing"]
    mends += [] if settings.bf16 else ["set bf16"]
    mends.append(f"lower max_tokens (it is {settings.max_tokens})")
    new = "" if settings.bf16 else "bf16 and "
    return (
        f"step {step + 1}: memory is full: {', or '.join(mends)}; another {new}max_tokens begin anew, in "
        f"another --out. {_kept(out)}"
    )


def _kept(out: Path) -> str:
    path = out / checkpoints.CHECKPOINT
    return f"The last checkpoint stays: {path}" if path.is_file() else "There is no checkpoint yet"
