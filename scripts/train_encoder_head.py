"""Train the linear head of the image-text encoder on captioned drawings, and measure it.

The pictures come from four packages, fetched by name: renders of emoji (npm) with their labels and tags,
Open Clip Art with titles and keywords, and Tux Paint's stamps with captions (both Debian). The network's
features are computed once and kept under --work; training takes under two minutes after that.

Whole concepts are held out: pictures with the same caption, or that look alike, are all on one side. No
picture that is in the seed set, or looks like one that is, is trained on or measured with, so that the
encoder's votes on seed images say something.

    python -m scripts.train_encoder_head
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.encoders import ImageEncoder
from pipeline.encoders.image import HEAD
from pipeline.models import locate
from scripts.packages import SOURCES, title_and_tags, unpacked

SEED = 20
ALIKE = 6
"""Pictures whose 64-bit perceptual hashes differ in at most this many bits count as alike."""
CLIPART = 3600
"""Drawings taken from Open Clip Art, at most two of a title."""
FLUENT = "npm @lobehub/fluent-emoji-3d 1.1.0, captions from emojibase-data 17.0.0"
OPENCLIPART = "Debian openclipart 0.18"
STAMPS = "Debian tuxpaint-stamps-default 2022.06.04"
LICENCES = {FLUENT: "MIT", OPENCLIPART: "public domain", STAMPS: "GPL-2"}
UNTOLD = {"shapes", "buttons", "decorations", "geography", "flags", "logos"}
"""Directories of Open Clip Art whose titles could not be told from the pictures."""

EPOCHS = 80
DECAY = 0.5
DROP = 0.8
BATCH = 1024

# Some drawings of Open Clip Art were rendered at 200 megapixels; the packages are trusted.
Image.MAX_IMAGE_PIXELS = None

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Example:
    """A captioned picture: its package, what it shows, further words, its file, and its name there."""

    source: str
    caption: str
    tags: tuple[str, ...]
    path: Path
    name: str

    @property
    def longer(self) -> str:
        """The caption and up to four tags."""
        tags = [t for t in self.tags if t not in self.caption][:4]
        return ", ".join([self.caption, *tags])


def emoji(work: Path) -> Iterable[Example]:
    """Yield renders of emoji in their default colour, without flags."""
    listing = json.loads((unpacked(SOURCES["emojibase-data"], work) / "en/data.json").read_text("utf-8"))
    assets = unpacked(SOURCES["fluent-emoji-3d"], work) / "assets"
    for entry in listing:
        code = entry["hexcode"].lower()
        files = [assets / f"{name}.webp" for name in (code, f"{code}-fe0f")]
        path = next((file for file in files if file.exists()), None)
        if path and not entry["label"].startswith("flag:"):
            yield Example(
                FLUENT, entry["label"].lower(), tuple(entry.get("tags", ())), path, f"assets/{path.name}"
            )


def stamps(work: Path) -> Iterable[Example]:
    """Yield Tux Paint's stamps with the first line of their English captions."""
    root = unpacked(SOURCES["tuxpaint-stamps"], work)
    for path in sorted(root.rglob("*.png")):
        words = path.with_suffix(".txt")
        if words.exists():
            caption = (words.read_text("utf-8", "replace").splitlines() or [""])[0].strip()
            if 3 <= len(caption) <= 120:
                place = tuple(p for p in path.parent.relative_to(root).parts if p not in {"cartoon", "photo"})
                yield Example(
                    STAMPS, caption.rstrip(".!").lower(), place[::-1], path, str(path.relative_to(root))
                )


def clipart(work: Path) -> Iterable[Example]:
    """Yield drawings of Open Clip Art, at most two of a title, in an order that only names decide."""
    root, drawings = (unpacked(SOURCES[name], work) for name in ("openclipart", "openclipart-svg"))
    files = [p for p in root.rglob("*.png") if not UNTOLD & set(p.relative_to(root).parts)]
    files.sort(key=lambda p: hashlib.sha256(f"png/{p.relative_to(root)}".encode()).digest())
    count: dict[str, int] = defaultdict(int)
    for path in files:
        words = title_and_tags(drawings / path.relative_to(root).with_suffix(".svg"))
        if words is None:
            continue
        caption = re.sub(r"[^a-z' ]+", " ", words[0].lower())
        caption = re.sub(r"\b(architetto|clip ?art|icon|svg|francesco rollandin|open|by)\b", " ", caption)
        caption = " ".join(caption.split())
        tags = [t.lower().replace("_", " ") for t in words[1] if not t.lower().startswith("hash")]
        if not 3 <= len(caption) <= 60 or count[caption] >= 2:
            continue
        count[caption] += 1
        yield Example(OPENCLIPART, caption, tuple(tags), path, str(path.relative_to(root)))
        if sum(count.values()) == CLIPART:
            return


def picture(example: Example) -> Image.Image:
    """Open a picture; half of those with alpha get a plain coloured ground, which the name decides."""
    with Image.open(example.path) as image:
        layer = image.convert("RGBA")
    layer.thumbnail((520, 520))
    digest = hashlib.sha256(example.path.name.encode()).digest()
    colour = (255, 255, 255) if digest[0] < 128 else tuple(digest[1:4])
    ground = Image.new("RGBA", layer.size, (*colour, 255))
    return Image.alpha_composite(ground, layer).convert("RGB")


def look(image: Image.Image) -> tuple[int, int]:
    """Return the perceptual hashes of a picture and of its mirror image."""
    import imagehash

    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return tuple(int(str(imagehash.phash(i)), 16) for i in (image, mirror))  # type: ignore[return-value]


def on_white(path: Path) -> Image.Image:
    """Open a picture with what is transparent laid on white."""
    with Image.open(path) as image:
        layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def measure(encoder: ImageEncoder, examples: Sequence[Example], cache: Path) -> tuple[Floats, NDArray[Any]]:
    """Return features (n, 1280) and perceptual hashes (n,) of the pictures, kept in the cache file."""
    known: dict[str, tuple[Floats, int]] = {}
    if cache.exists():
        with np.load(cache) as arrays:
            known = {
                str(k): (f, int(h))
                for k, f, h in zip(arrays["keys"], arrays["features"], arrays["hashes"], strict=True)
            }
    keys = ["/".join(e.path.parts[-3:]) for e in examples]
    todo = [i for i, key in enumerate(keys) if key not in known]
    started = time.monotonic()

    def save() -> None:
        np.savez(
            cache,
            keys=np.array(list(known)),
            features=np.stack([f for f, _ in known.values()]),
            hashes=np.array([h for _, h in known.values()], np.uint64),
        )

    for count, i in enumerate(todo, 1):
        known[keys[i]] = (encoder.features([picture(examples[i])])[0], look(on_white(examples[i].path))[0])
        if count % 1000 == 0 or count == len(todo):
            save()
            print(f"{count}/{len(todo)} features, {time.monotonic() - started:.0f} s", flush=True)
    return np.stack([known[k][0] for k in keys]), np.array([known[k][1] for k in keys], np.uint64)


def digest(name: str) -> int:
    """Return the first 64 bits of a name's SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def alike(a: NDArray[Any], b: NDArray[Any]) -> Flags:
    """Return (n, m): whether the 64-bit hashes differ in at most ALIKE bits."""
    return np.stack([np.bitwise_count(x ^ b) <= ALIKE for x in a]) if len(a) else np.zeros((0, len(b)), bool)


def in_seed(examples: Sequence[Example], hashes: NDArray[Any], folder: Path, selection: Path) -> Flags:
    """Return which examples are in the seed set: chosen by path, or alike to a seed picture or its mirror."""
    for path in (folder / "metadata.jsonl", selection):
        if not path.exists():
            raise SystemExit(f"{path}: no such file; build the seed set first (scripts/build_seed.py).")
    with selection.open(encoding="utf-8", newline="") as file:
        chosen = {row["path"] for row in csv.DictReader(file)}
    seen: list[int] = []
    for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines():
        seen += look(on_white(folder / json.loads(line)["file_name"]))
    named = [e.name in chosen for e in examples]
    flags: Flags = np.array(named) | alike(hashes, np.array(seen, np.uint64)).any(1)
    return flags


def concepts(examples: Sequence[Example], hashes: NDArray[Any]) -> NDArray[np.int64]:
    """Number the concepts: pictures of one caption, and pictures that look alike, share a number."""
    parent = list(range(len(examples)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        words = re.sub(r"[^a-z ]", " ", example.caption)
        # Men, women and persons doing one thing are one concept.
        key = " ".join(w for w in words.split() if w not in {"a", "an", "the", "man", "woman", "person"})
        parent[root(i)] = root(first.setdefault(key or example.caption, i))
    for i in range(len(examples)):
        for j in np.flatnonzero(np.bitwise_count(hashes[i] ^ hashes[i + 1 :]) <= ALIKE):
            parent[root(i)] = root(i + 1 + int(j))
    return np.array([root(i) for i in range(len(examples))])


def unit(x: Floats) -> Floats:
    """Scale rows to length 1."""
    scaled: Floats = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return scaled


def recall(images: Floats, captions: Sequence[str], vectors: dict[str, Floats], k: int = 10) -> float:
    """Return the share of images whose own caption is among the k nearest of all captions."""
    pool = sorted(set(captions))
    scores = images @ np.stack([vectors[c] for c in pool]).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    place = {c: i for i, c in enumerate(pool)}
    return float(np.mean([place[c] in row for c, row in zip(captions, best, strict=True)]))


def train(features: Floats, texts: Sequence[Sequence[Floats]]) -> tuple[Floats, Floats]:
    """Train a linear map into the text space with open_clip's contrastive loss.

    Args:
        features: (n, 1280).
        texts: For each row the embeddings of its captions; each epoch draws one.

    Returns:
        Weight (d, 1280) and bias (d,), with the scaling of the features folded in.
    """
    import torch
    from open_clip.loss import ClipLoss

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    mean, spread = features.mean(0), features.std(0) + 1e-3
    x = torch.from_numpy((features - mean) / spread)
    head = torch.nn.Linear(x.shape[1], len(texts[0][0]))
    torch.nn.init.normal_(head.weight, std=0.01)
    torch.nn.init.zeros_(head.bias)
    scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07)))
    steps = EPOCHS * (len(x) // BATCH)
    groups = [{"params": head.parameters(), "weight_decay": DECAY}, {"params": [scale], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss = ClipLoss()
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        y = torch.from_numpy(np.stack([t[int(rng.integers(len(t)))] for t in texts]))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            seen = torch.nn.functional.dropout(x[rows], DROP)
            images = torch.nn.functional.normalize(head(seen), dim=-1)
            optimiser.zero_grad()
            loss(images, y[rows], scale.exp().clamp(max=50)).backward()
            optimiser.step()
            schedule.step()
    weight: Floats = head.weight.detach().numpy() / spread
    bias: Floats = head.bias.detach().numpy() - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def seed_pictures(encoder: ImageEncoder, folder: Path) -> dict[str, dict[str, float]]:
    """Measure recall of the right subject among all subjects of the seed set, which was not trained on."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    features = encoder.features([on_white(folder / row["file_name"]) for row in rows])
    subjects = [row["subject"] for row in rows]
    vectors = dict(zip(subjects, encoder.embed_texts(subjects), strict=True))
    figures: dict[str, dict[str, float]] = {"size": {"pictures": len(rows), "subjects": len(vectors)}}
    for label in ("from_classes", "from_head", "embed_features"):
        images = getattr(encoder, label)(features)
        figures[label] = {f"recall_at_{k}": round(recall(images, subjects, vectors, k), 3) for k in (1, 10)}
    return figures


def photographs(encoder: ImageEncoder, folder: Path) -> dict[str, str]:
    """Count photographs whose nearest name, of all names in the folder's metadata, is of a thing in them."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    names = sorted({name for row in rows for name in row["objects"]})
    features = encoder.features([on_white(folder / row["file_name"]) for row in rows])
    texts = encoder.embed_texts(names)
    figures = {}
    for label in ("from_classes", "from_head", "embed_features"):
        best = (getattr(encoder, label)(features) @ texts.T).argmax(1)
        hits = sum(names[b] in row["objects"] for b, row in zip(best, rows, strict=True))
        figures[label] = f"{hits} of {len(rows)} among {len(names)} names"
    return figures


def main() -> None:
    """Fetch, measure, train, choose the mix on validation concepts, measure on test concepts, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--work", type=Path, default=Path(".holisafe/encoder-head"))
    parser.add_argument("--seed-images", type=Path, default=Path("data/seed"))
    parser.add_argument("--seed-selection", type=Path, default=Path("scripts/seed_selection.csv"))
    parser.add_argument("--photographs", type=Path, help="directory with metadata.jsonl: file_name, objects")
    parser.add_argument("--out", type=Path, default=HEAD)
    args = parser.parse_args()

    examples = [*emoji(args.work), *stamps(args.work), *clipart(args.work)]
    encoder = ImageEncoder(locate("efficientnet-lite2"), locate("all-minilm-l6-v2"), head_path=None)
    features, hashes = measure(encoder, examples, args.work / "features.npz")
    out = in_seed(examples, hashes, args.seed_images, args.seed_selection)
    keep = np.flatnonzero(~out)
    print(f"{len(examples)} pictures, {out.sum()} of them in the seed set or like it")
    examples, features, hashes = [examples[i] for i in keep], features[keep], hashes[keep]

    numbers = concepts(examples, hashes)
    digests = {
        n: hashlib.sha256(f"{SEED}/{examples[n].caption}".encode()).digest()[0] / 256 for n in set(numbers)
    }
    part = np.array([digests[n] for n in numbers])
    largest = max(np.unique(numbers, return_counts=True)[1])
    sides = {"test": np.flatnonzero(part < 0.1), "validation": np.flatnonzero((part >= 0.1) & (part < 0.2))}
    sides["train"] = np.flatnonzero(part >= 0.2)
    print({k: len(v) for k, v in sides.items()}, len(digests), "concepts, the largest of", largest)

    words = sorted({t for e in examples for t in (e.caption, e.longer)})
    cache = args.work / f"texts-{hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]}.npy"
    if not cache.exists():
        np.save(cache, encoder.embed_texts(words))
    vectors = dict(zip(words, np.load(cache), strict=True))
    names = encoder.from_classes(features)
    captions = [e.caption for e in examples]

    def fit(rows: NDArray[Any]) -> tuple[Floats, Floats]:
        pairs = [[vectors[examples[i].caption], vectors[examples[i].longer]] for i in rows]
        return train(features[rows], pairs)

    weight, bias = fit(sides["train"])
    head = unit(features @ weight.T + bias)

    def score(side: str, mix: float) -> float:
        rows = sides[side]
        return recall(unit((1 - mix) * names[rows] + mix * head[rows]), [captions[i] for i in rows], vectors)

    # Photographs are scarce in the training data and class names serve them better, so of shares of the
    # head that do as well as the best on validation, within .02, the smallest is taken.
    shares = [m / 20 for m in range(21)]
    best = max(score("validation", m) for m in shares)
    mix = next(m for m in shares if score("validation", m) >= best - 0.02)
    figures = {
        side: {
            "pictures": len(sides[side]),
            "captions": len({captions[i] for i in sides[side]}),
            "recall_at_10": {
                "class_names": round(score(side, 0.0), 3),
                "head": round(score(side, 1.0), 3),
                "sum": round(score(side, mix), 3),
            },
        }
        for side in ("validation", "test")
    }
    # The figures are those of a head that has not seen the held-out concepts; the head that ships has.
    weight, bias = fit(np.arange(len(examples)))
    np.savez(
        args.out,
        weight=weight.astype(np.float16),
        bias=bias.astype(np.float16),
        mix=np.float32(mix),
        # What was trained on, so that a test can hold new seed pictures against it.
        names=np.array([digest(e.name) for e in examples], np.uint64),
        looks=hashes,
    )
    record: dict[str, Any] = {
        "what": "linear head of the image-text encoder: 1,280 features to the text space",
        "script": "scripts/train_encoder_head.py",
        "random_seed": SEED,
        "settings": {"epochs": EPOCHS, "batch": BATCH, "weight_decay": DECAY, "dropout": DROP},
        "data": [
            {"source": s, "licence": LICENCES[s], "pictures": sum(e.source == s for e in examples)}
            for s in LICENCES
        ],
        "left_out_for_the_seed_set": int(out.sum()),
        "concepts": len(digests),
        "mix": mix,
        "held_out": figures,
    }
    shipped = ImageEncoder(locate("efficientnet-lite2"), locate("all-minilm-l6-v2"), args.out)
    record["seed_set"] = seed_pictures(shipped, args.seed_images)
    if args.photographs:
        record["photographs"] = photographs(shipped, args.photographs)
    args.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
