"""How fast images are labelled by an open_clip encoder, beside a bare open_clip loop over the same files.

    python -m benchmarks.encoder [--out FILE] [--images 256] [--batch 16] [--runs 3]

The network is ViT-B-32 with random weights; the images are JPEG files of 640 x 480 pixels that it makes. The
bare loop opens, prepares and stacks a batch and encodes it, on as many threads as torch takes by itself. The
labelling does what the stage does: it decodes, embeds, keeps embeddings and votes. Both take turns, times are
medians of `--runs`, and the exit code says whether the bound held.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.annotators import EncoderAnnotator, ImageItem, image_item
from pipeline.encoders import FeatureStore, OpenClipEncoder
from pipeline.store import write_json
from pipeline.workspace import Silent
from schemas.taxonomy import load_taxonomy

ARCH = "ViT-B-32"
SEED = 7
BOUND = 0.85


def jpegs(count: int) -> list[bytes]:
    """Pictures with forms and noise, about as large as photographs of their size."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(count):
        forms = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).resize((640, 480))
        noisy = np.asarray(forms, np.int16) + rng.integers(-12, 12, (480, 640, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def bare_loop(checkpoint: Path, files: list[bytes], batch: int) -> tuple[float, Any]:
    """Images a second of what anybody would write first, and its embeddings."""
    import open_clip
    import torch

    model, _, prepare = open_clip.create_model_and_transforms(ARCH, pretrained=str(checkpoint))
    model.eval()

    def once(some: list[bytes]) -> Any:
        with torch.inference_mode():
            pixels = torch.stack([prepare(Image.open(io.BytesIO(data)).convert("RGB")) for data in some])
            return model.encode_image(pixels, normalize=True)

    once(files[:batch])
    start = time.perf_counter()
    rows = torch.cat([once(files[i : i + batch]) for i in range(0, len(files), batch)])
    return len(files) / (time.perf_counter() - start), rows.numpy()


def labelling(annotator: EncoderAnnotator, items: list[ImageItem]) -> float:
    """Images a second of the annotator."""
    start = time.perf_counter()
    votes = annotator.annotate(items, Silent())
    seconds = time.perf_counter() - start
    if len(votes) != 2 * len(items):
        raise RuntimeError(f"{len(votes)} votes on {len(items)} images")
    return len(items) / seconds


def measure(folder: Path, images: int, batch: int, runs: int, threads: int) -> dict[str, Any]:
    """Both, in turn."""
    import open_clip
    import torch

    torch.manual_seed(SEED)
    checkpoint = folder / "random.pt"
    torch.save(open_clip.create_model(ARCH, load_weights=False).state_dict(), checkpoint)
    files = jpegs(images)
    items = [image_item(f"{i}", None, None, data) for i, data in enumerate(files)]
    encoder = OpenClipEncoder(ARCH, checkpoint, batch=batch, threads=threads)
    taxonomy = load_taxonomy(Path("schemas/taxonomy.yaml"))
    bare, labelled, again, apart = [], [], [], 0.0
    encoder.embed([item.load() for item in items[:batch]])
    for run in range(runs):
        rate, rows = bare_loop(checkpoint, files, batch)
        bare.append(rate)
        with FeatureStore(folder / f"{run}.sqlite") as kept:
            annotator = EncoderAnnotator(encoder, taxonomy, kept=kept)
            labelled.append(labelling(annotator, items))
            again.append(labelling(annotator, items))
        apart = max(
            apart, float(np.abs(encoder.embed([i.load() for i in items[:batch]]) - rows[:batch]).max())
        )
    return {
        "bare_images_per_s": statistics.median(bare),
        "labelled_images_per_s": statistics.median(labelled),
        "ratio": statistics.median(labelled) / statistics.median(bare),
        "labelled_again_images_per_s": statistics.median(again),
        "largest_difference_of_embeddings": apart,
        "all": {"bare": bare, "labelled": labelled, "again": again},
    }


def environment() -> dict[str, Any]:
    """Where this was measured."""
    import torch

    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in ("torch", "open_clip_torch", "pillow", "numpy")},
        "load_before": os.getloadavg()[0],
    }


def main() -> int:
    """Measure, print, and say whether the bound held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    report = {"environment": environment(), "arguments": {k: v for k, v in vars(args).items() if k != "out"}}
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.images, args.batch, args.runs, args.threads)
    holds = result["ratio"] >= BOUND
    shown = {k: round(v, 3) for k, v in result.items() if k != "all"}
    print(f"{'ok  ' if holds else 'MISS'} encoder: {shown} (bound: ratio >= {BOUND})")
    if args.out:
        write_json(args.out, report | {"results": result})
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
