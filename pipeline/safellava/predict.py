"""What a SafeLLaVA answers to every row of a dataset, and what it says of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from pipeline.anyset import FIELDS, AnySet
from pipeline.bench.run import KEPT
from pipeline.safellava.answers import Answer, KeptAnswers
from pipeline.safellava.load import Loaded, device
from pipeline.safellava.pictures import Pictures, look_at_pictures
from pipeline.safellava.processor import Encoded, UnusableTextError
from pipeline.store import new_text, sha256_text, write_json_list
from pipeline.workspace import Progress

__all__ = ["predict", "probabilities", "write_answers"]

DECIMALS = 6
MOST_TOKENS = 512


def predict(
    loaded: Loaded,
    found: AnySet,
    progress: Progress,
    *,
    batch: int = 4,
    most: int = MOST_TOKENS,
    keep: Path | None = None,
) -> list[Answer]:
    """Ask about every row, greedily.

    Args:
        loaded: the model.
        found: the dataset.
        progress: told of images and rows.
        batch: rows at one time.
        most: new tokens of an answer.
        keep: a file for answers as they come; those that it has are not asked for again.

    Returns:
        Answers in the order of the rows.

    Raises:
        InputError: when `keep` has answers of another model, of other rows or settings.
    """
    rows = found.rows
    pictures = look_at_pictures(found.pictures, sorted(rows["image"].unique()), progress)
    progress.start("answers", len(rows))
    answers: dict[int, Answer] = {}
    asked: list[tuple[int, str, Encoded]] = []
    for place, (key, query) in enumerate(zip(rows["image"], rows["query"], strict=True)):
        if key not in pictures.held:
            answers[place] = Answer("", "no image", pictures.bad.get(key, "missing"))
            progress.advance()
            continue
        try:
            asked.append((place, key, loaded.prompter.encode_prompt(query)))
        except UnusableTextError as error:
            answers[place] = Answer("", "not sent", f"the query {error}")
            progress.advance()
    # Rows of like length together: fewer places are filled up for nothing.
    asked.sort(key=lambda one: (len(one[2].input_ids), one[0]))
    kept = None if keep is None else KeptAnswers(keep, _about(loaded, asked, pictures, batch, most))
    loaded.model.to(device())  # type: ignore[arg-type]
    for start in range(0, len(asked), batch):
        some = asked[start : start + batch]
        made = None if kept is None else kept.get(start)
        if made is None:
            made = _ask(loaded, [e for _, _, e in some], [pictures.open(key) for _, key, _ in some], most)
            if kept is not None:
                kept.add(start, made)
        answers |= {place: answer for (place, _, _), answer in zip(some, made, strict=True)}
        progress.advance(len(some))
    return [answers[place] for place in range(len(rows))]


def _about(
    loaded: Loaded, asked: Sequence[tuple[int, str, Encoded]], pictures: Pictures, batch: int, most: int
) -> dict[str, Any]:
    """What answers hang on."""
    rows = [(place, pictures.sha256[key], encoded.input_ids) for place, key, encoded in asked]
    return {
        "model": _identity(loaded),
        "rows": sha256_text(repr(rows))[:16],
        "batch": batch,
        "max tokens": most,
        "device": device().type,
    }


def _identity(loaded: Loaded) -> str:
    """Changes with whatever of the model an answer hangs on."""
    made = sha256()
    for name, tensor in loaded.model.state_dict().items():
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    said = [one.to_json_string() for one in (loaded.model.config, loaded.model.generation_config)]
    said.append(loaded.processor.image_processor.to_json_string())
    said.append(repr(sorted(loaded.processor.tokenizer.get_vocab().items())))
    made.update("\n".join(said).encode())
    return made.hexdigest()[:16]


def _ask(loaded: Loaded, rows: Sequence[Encoded], images: Sequence[Image], most: int) -> list[Answer]:
    inputs = loaded.inputs(rows, images)
    model: Any = loaded.model
    with torch.inference_mode():
        probs = model(**inputs, do_safety=True, logits_to_keep=1).img_safety_probs.float().cpu()
        said = model.generate(**inputs, do_sample=False, max_new_tokens=most)
    new = said[:, inputs["input_ids"].shape[1] :].cpu()
    return [_answer(loaded, ids, row, most) for ids, row in zip(new, probs, strict=True)]


def _answer(loaded: Loaded, ids: torch.Tensor, probs: torch.Tensor, most: int) -> Answer:
    text = loaded.prompter.decode(ids)
    eos = loaded.model.generation_config.eos_token_id
    ends = set(eos if isinstance(eos, list) else [eos])
    cut = len(ids) >= most and not ends & set(ids.tolist())
    status = "cut off" if cut else "ok" if text else "empty"
    return Answer(text, status, "", tuple(round(float(p), DECIMALS) for p in probs))


def probabilities(
    loaded: Loaded, keys: Sequence[str], pictures: Pictures, progress: Progress, batch: int = 8
) -> Iterator[torch.Tensor]:
    """What the head says of images without any query: (classes,) float32 for each, in the order of `keys`."""
    encoded = loaded.prompter.encode_image()
    model: Any = loaded.model
    model.to(device())
    progress.start("head", len(keys))
    for start in range(0, len(keys), batch):
        some = keys[start : start + batch]
        inputs = loaded.inputs([encoded] * len(some), [pictures.open(key) for key in some])
        with torch.inference_mode():
            out = model(**inputs, do_safety=True, logits_to_keep=1)
        progress.advance(len(some))
        yield from out.img_safety_probs.float().cpu()


def write_answers(path: Path, found: AnySet, answers: Sequence[Answer]) -> None:
    """Write HoliSafe's prediction file: its fields, `prediction`, and `status`, `detail`, `img_safety_probs`.

    Args:
        path: a JSON file; it is there whole or not at all.
        found: the dataset that was asked.
        answers: one for each of its rows.
    """
    with new_text(path) as file:
        write_json_list(
            file,
            (
                {name: row[name] for name in (*FIELDS, *KEPT) if isinstance(row.get(name), str | bool | int)}
                | {"prediction": answer.text, "status": answer.status, "detail": answer.detail}
                | {"img_safety_probs": None if answer.probs is None else list(answer.probs)}
                for row, answer in zip(found.rows.to_dict("records"), answers, strict=True)
            ),
        )
