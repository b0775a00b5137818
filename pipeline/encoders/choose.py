"""The image-text encoder that params name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.encoders.checkpoint import OpenClipEncoder
from pipeline.encoders.image import ImageEncoder, load_image_encoder
from pipeline.store import sha256_file
from schemas.errors import InputError
from schemas.params import CheckpointEncoder, EmbeddedEncoder

__all__ = ["check_encoder", "encoder_identity", "load_encoder"]


def load_encoder(said: EmbeddedEncoder | CheckpointEncoder, root: Path) -> ImageEncoder | OpenClipEncoder:
    """Load the encoder; paths in params are below `root`.

    Raises:
        InputError: when a file is missing, or does not hold what params say.
        ModelMissingError: when the embedded encoder's weights are missing.
    """
    if said.kind == "embedded":
        return load_image_encoder()
    check_encoder(said, root)
    try:
        return OpenClipEncoder(
            said.arch if said.config is None else root / said.config,
            root / said.checkpoint,
            pretrained_tag=said.pretrained_tag,
            tokenizer=said.tokenizer and root / said.tokenizer,
            precision=said.precision,
            batch=said.batch,
            threads=said.threads,
            device=said.device,
        )
    except ValueError as error:
        raise InputError(f"{root / 'params.yaml'}: encoder: {error}") from error


def check_encoder(said: EmbeddedEncoder | CheckpointEncoder, root: Path) -> None:
    """See that the files that params name are there; nothing is loaded.

    Raises:
        InputError: naming the field and the file.
    """
    for field, path in _files(said).items():
        if not (root / path).exists():
            raise InputError(
                f"{root / 'params.yaml'}: encoder.{field}: there is no {path}; "
                "correct the path, or put the file there"
            )


def encoder_identity(said: EmbeddedEncoder | CheckpointEncoder, root: Path) -> dict[str, Any]:
    """What decides the encoder's votes, with the SHA-256 of every file that params name.

    Raises:
        InputError: when one of them is missing.
    """
    check_encoder(said, root)
    found = said.identity()
    for field, path in _files(said).items():
        whole = root / path
        inside = sorted(p for p in whole.rglob("*") if p.is_file()) if whole.is_dir() else [whole]
        found[field] = {str(p.relative_to(whole)): _sha256(p) for p in inside}
    return found


def _files(said: EmbeddedEncoder | CheckpointEncoder) -> dict[str, Path]:
    """The files and folders that params name, by field."""
    found = {"calibration": said.calibration}
    if said.kind == "open_clip":
        found |= {"checkpoint": said.checkpoint, "arch": said.config, "tokenizer": said.tokenizer}
    return {field: path for field, path in found.items() if path is not None}


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _hashed(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _hashed(path: Path, _size: int, _mtime_ns: int) -> str:
    """A file's SHA-256; of a large one, once a process, since stage keys are asked for often."""
    return sha256_file(path)
