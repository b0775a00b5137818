"""What is not of the core: which packages come with which extra, and what to say where one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from schemas.errors import InputError

__all__ = ["EXTRAS", "missing", "needs"]

EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "build": (
        "aiohttp",
        "datasets",
        "dvc",
        "faker",
        "font_amatic_sc",
        "font_caladea",
        "font_fredoka_one",
        "font_intuitive",
        "matplotlib",
        "openai",
        "prefect",
        "protego",
    ),
    "models": (
        "onnx",
        "open_clip",
        "torch",
        "torchvision",
        "transformers",
        "usearch",
        "xllamacpp",
    ),
    "gpu": ("diffusers",),
    "postgres": ("psycopg",),
    "s3": ("dvc_s3", "s3fs"),
    "ray": ("ray",),
    "dask": ("distributed",),
    "safellava": ("accelerate", "dvclive", "gguf", "peft", "sklearn"),
}
"""The modules of each extra of pyproject.toml, by the names by which they are imported."""

_EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}


def needs(*modules: str) -> None:
    """See that modules of extras are installed; none is imported.

    For what would else be found missing late, or in another process.

    Raises:
        InputError: naming those that are not, and the command that installs them.
    """
    if lacking := [name for name in modules if find_spec(name) is None]:
        raise _told(lacking)


def missing(error: ImportError) -> InputError | None:
    """What to say of an import that failed; None where no extra brings the module."""
    module = (error.name or "").partition(".")[0]
    return _told([module]) if module in _EXTRA_OF else None


def _told(modules: Sequence[str]) -> InputError:
    extras = ",".join(sorted({_EXTRA_OF[name] for name in modules}))
    return InputError(
        f"not installed here: {', '.join(modules)}; run: pip install 'holisafe-pipeline[{extras}]'"
    )
