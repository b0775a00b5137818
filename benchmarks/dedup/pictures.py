"""Pictures that look somewhat like photographs, and copies of them as people make them.

Natural pictures have spectra that fall with the frequency, large shapes with soft and hard edges, and colours
that go together; so have these. All from a seed.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

WIDTH, HEIGHT = 640, 480
EDITS = ("resize", "jpeg", "brightness", "crop", "mirror", "border", "watermark", "grey")


def picture(seed: int) -> Image.Image:
    """A picture of its own for each seed, RGB."""
    rng = np.random.default_rng(seed)
    width, height = (WIDTH, HEIGHT) if rng.random() < 0.7 else (HEIGHT, WIDTH)
    base = _field(rng, width, height, rng.uniform(1.2, 2.0))
    colours = rng.uniform(20, 235, (3, 3))
    mixed = base[..., None] * colours[0] + (1 - base[..., None]) * colours[1]
    tint = _field(rng, width, height, 1.8)[..., None]
    image = Image.fromarray((0.75 * mixed + 0.25 * tint * colours[2]).clip(0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(2, 9))):
        image = _with_shape(rng, image)
    grain = rng.normal(0, rng.uniform(1, 5), (height, width, 1))
    return Image.fromarray((np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8))


def _field(rng: np.random.Generator, width: int, height: int, fall: float) -> NDArray[np.float64]:
    """A grey field, 0..1, whose amplitudes fall as 1 / frequency ** fall."""
    small = (height // 4, width // 4)
    fy, fx = np.fft.fftfreq(small[0])[:, None], np.fft.rfftfreq(small[1])[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1
    phase = np.exp(2j * np.pi * rng.random(frequency.shape))
    field = np.fft.irfft2(phase / frequency**fall, small)
    low, high = np.percentile(field, [2, 98])
    grey = Image.fromarray(((field - low) / (high - low)).clip(0, 1).astype(np.float32))
    return np.asarray(grey.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1).astype(np.float64)


def _with_shape(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    width, height = image.size
    mask = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(mask)
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    radius = rng.uniform(0.06, 0.3) * min(width, height)
    if rng.random() < 0.5:
        squash = rng.uniform(0.4, 1.6)
        draw.ellipse([x - radius * squash, y - radius, x + radius * squash, y + radius], fill=255)
    else:
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        reach = radius * rng.uniform(0.5, 1.4, len(turns))
        draw.polygon([(x + r * np.cos(t), y + r * np.sin(t)) for t, r in zip(turns, reach, strict=True)], 255)
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 6)))
    colour = rng.uniform(0, 255, 3)
    light = _field(rng, width, height, 1.6)[..., None]
    shape = Image.fromarray((colour * (0.5 + 0.5 * light)).clip(0, 255).astype(np.uint8))
    return Image.composite(shape, image, mask)


def edited(image: Image.Image, edit: str, seed: int) -> bytes:
    """A copy as people make it, as a JPEG file."""
    rng = np.random.default_rng(seed)
    width, height = image.size
    quality = 85
    if edit == "resize":
        share = rng.uniform(0.4, 1.5)
        image = image.resize((int(width * share), int(height * share)), Image.Resampling.BICUBIC)
    elif edit == "jpeg":
        quality = 30
    elif edit == "brightness":
        image = ImageEnhance.Brightness(image).enhance(rng.choice([0.75, 1.25]))
    elif edit == "crop":
        left, top = (int(size * rng.uniform(0, 0.05)) for size in image.size)
        right, bottom = (int(size * rng.uniform(0, 0.05)) for size in image.size)
        image = image.crop((left, top, width - right, height - bottom))
    elif edit == "mirror":
        image = ImageOps.mirror(image)
    elif edit == "border":
        shade = int(rng.integers(0, 256))
        image = ImageOps.expand(image, int(rng.integers(4, 17)), (shade, shade, shade))
    elif edit == "watermark":
        image = image.copy()
        at = (int(width * rng.uniform(0.05, 0.6)), int(height * rng.uniform(0.6, 0.9)))
        ImageDraw.Draw(image).text(at, "picture agency 2026", fill=(255, 255, 255), font_size=28)
    elif edit == "grey":
        image = ImageOps.grayscale(image)
    return _jpeg(image, quality)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_folder(folder: Path, pictures: int, copies: int, seed: int = 1) -> dict[str, str]:
    """Write pictures and edited copies of some of them, and which copy belongs to which picture.

    Args:
        folder: gets the files, and `truth.json` beside it.
        pictures: how many there are.
        copies: how many copies, of different pictures, by all edits in turn.
        seed: of everything.

    Returns:
        For each copy's file name its original's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth_file = folder.with_suffix(".json")
    if truth_file.exists():
        truth: dict[str, str] = json.loads(truth_file.read_text())
        return truth
    rng = np.random.default_rng(seed)
    names = [f"{number:06x}.jpg" for number in rng.permutation(1 << 24)[: pictures + copies]]
    originals = rng.choice(pictures, copies, replace=False)
    edit_of = {int(n): (EDITS[i % len(EDITS)], names[pictures + i]) for i, n in enumerate(originals)}
    work = [(folder, names[n], seed * 1_000_003 + n, edit_of.get(n)) for n in range(pictures)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_write, work, chunksize=20))
    truth = {copy: names[n] for n, (_, copy) in edit_of.items()}
    truth_file.write_text(json.dumps(truth))
    folder.with_suffix(".edits.json").write_text(json.dumps({c: e for e, c in edit_of.values()}))
    return truth


def _write(work: tuple[Path, str, int, tuple[str, str] | None]) -> None:
    folder, name, seed, copy = work
    image = picture(seed)
    (folder / name).write_bytes(_jpeg(image, 90))
    if copy is not None:
        edit, copy_name = copy
        (folder / copy_name).write_bytes(edited(Image.open(folder / name), edit, seed))
