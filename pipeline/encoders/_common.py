"""What the encoders share: fixed threads, padded batches, checked files, images on white."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from PIL.Image import Image

S = TypeVar("S")
T = TypeVar("T")
FloatArray = NDArray[np.float32]

THREADS = 1
"""Threads of every model. Fixed, because sums split over another number of threads round differently; one,
because two waited for each other in busy loops and ran fifty times slower beside another busy process."""

_lock = threading.RLock()


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Run torch without gradients on exactly `THREADS` threads, whatever OMP_NUM_THREADS says.

    Callers take turns, but for those whose own thread has that number already (`in_threads`).
    """
    import torch

    if torch.get_num_threads() == THREADS:
        with torch.inference_mode():
            yield
        return
    with _lock:
        before = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)


def in_threads(function: Callable[[S], T], items: Iterable[S], workers: int) -> Iterator[T]:
    """Apply a function that uses torch to items, in order; few more than `workers` are in memory.

    In each thread torch has `THREADS` threads, so that a result is the same however many run beside it.
    """
    import torch

    rest = iter(items)
    running: deque[Future[T]] = deque()
    # The number of torch's threads is each thread's own: here nobody else's changes.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(THREADS,)) as pool:
        for item in rest:
            running.append(pool.submit(function, item))
            if len(running) > workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip and transformers from reporting, while loading, what is as it should be."""
    from transformers.utils import logging as untyped

    transformers_logging: Any = untyped
    with _lock:
        level, bars = logging.root.manager.disable, transformers_logging.is_progress_bar_enabled()
        logging.disable(logging.WARNING)
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.disable(level)
            if bars:
                transformers_logging.enable_progress_bar()


def padded(items: Sequence[T], size: int, filler: T) -> Iterator[tuple[list[T], int]]:
    """Cut items into batches of exactly `size`, the last one filled up; yield (batch, real items in it)."""
    for start in range(0, len(items), size):
        batch = list(items[start : start + size])
        real = len(batch)
        yield batch + [filler] * (size - real), real


def require(path: Path, what: str, *, directory: bool = False) -> Path:
    """Return the path, or raise FileNotFoundError that names it and the mend."""
    if not (path.is_dir() if directory else path.is_file()):
        kind = "directory" if directory else "file"
        raise FileNotFoundError(
            f"{path}: no such {kind}; it should hold {what}. Give its path, or let pipeline.models fetch it."
        )
    return path


def fingerprint(paths: Sequence[Path]) -> str:
    """Return 16 hex digits of the SHA-256 over the files' own SHA-256s, in the order given."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def on_white(image: Image) -> Image:
    """Return the image as RGB, with what is transparent laid on white."""
    flat = flattened(image)
    return flat if flat.mode == "RGB" else flat.convert("RGB")


def flattened(image: Image) -> Image:
    """Return an image with an alpha channel as RGB on white, and any other as it is."""
    from PIL import Image as Images

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    layer = image.convert("RGBA")
    return Images.alpha_composite(Images.new("RGBA", layer.size, "white"), layer).convert("RGB")


def unit(vectors: FloatArray) -> FloatArray:
    """Scale each row to length 1; rows of zeros stay zeros."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    scaled: FloatArray = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the (n, m) cosines of unit rows (n, d) and (m, d).

    Summed in double precision, so that rounding to single hides how the product was blocked.
    """
    product: FloatArray = (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)
    return product
