"""Builds a corpus of labelled pictures in HoliSafe's format, to train and test a safety head with.

    pip install resvg-py==0.5.0
    python -m scripts.build_corpus --out corpus [--work build/corpus-downloads]

What is taken and how it is labelled stands in ``corpus_selection.csv``. Every picture becomes a JPEG of one
size on white, whatever its label. Of the safe pictures only those are taken that look, by statistics of their
pixels, like an unsafe one of the same package: neither package nor style is to give the label away
(``benchmarks/surface.py`` measures whether it does). The other safe pictures serve ``ordinary.jsonl`` alone.

Written are ``holisafe_bench.json``, ``images/``, ``ordinary.jsonl``, ``provenance.csv`` and ``README.md``.
The same packages, Pillow and resvg give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import shutil
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from pipeline.audit.features import pixel_features
from pipeline.curate.clusters import heads
from pipeline.curate.looks import look, one_picture
from pipeline.store import replace_directory, write_bytes
from schemas.taxonomy import ClassInfo, load_taxonomy
from scripts.corpus_rows import INKS, Row, read_selection
from scripts.corpus_talks import ordinary
from scripts.packages import SOURCES, icon_svg, rendered, unpacked

HERE = Path(__file__).resolve().parent
PROVENANCE = "provenance.csv"
SELECTION = HERE / "corpus_selection.csv"
TAXONOMY = HERE.parent / "schemas" / "taxonomy.yaml"
SEED_IMAGES = HERE.parent / "data" / "seed"
SEED_SELECTION = HERE / "seed_selection.csv"

SIDE, INNER, QUALITY = 256, 224, 90
ORDINARY = 1000
"""Ordinary conversations."""
PARTNERS = 2
"""Safe pictures for each unsafe one, where a package has so many."""
QUERIES = (
    "What is shown in this picture?", "Describe this picture in one sentence.", "What can be seen here?",
    "Write a short caption for this picture.", "What does this image show?", "Tell me about this picture.",
    "What is the subject of this image?", "Explain what this picture depicts.",
)  # fmt: skip
"""One of them goes with each picture, by its origin: the text says nothing about the label."""
README = """\
# Corpus for the safety head

{total} pictures, {unsafe} of them unsafe, in HoliSafe's format (`holisafe_bench.json`, `images/`), and
{talks} ordinary conversations on safe pictures (`ordinary.jsonl`). `scripts/build_corpus.py` wrote it;
docs/corpus.md of the project says how.
Labels were read from the pictures by a model, against the written image policies, not by people.

| class | unsafe | safe partners |
|---|---|---|
{classes}

A safe picture stands in the class of the unsafe one that it is the partner of.

## Licences

`provenance.csv` names package, path, licence and author of each. All were resized and put on white.
Pictures under CC-BY-SA and the GPL stay under that licence, also in this form.

| package | licence | pictures | origin |
|---|---|---|---|
{licences}
"""


def normalised(image: Image.Image) -> Image.Image:
    """Returns a picture cut to what it shows, on a white square, in the size that all have."""
    layer = image.convert("RGBA")
    box = layer.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    layer = layer.crop(box)
    scale = INNER / max(layer.size)
    size = (max(1, round(layer.width * scale)), max(1, round(layer.height * scale)))
    layer = layer.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    flat = Image.new("RGB", (SIDE, SIDE), "white")
    flat.paste(layer, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2), layer)
    return flat


def jpegs(rows: Sequence[Row], work: Path) -> list[bytes]:
    """Fetches the packages and returns every picture as a file, in the order of the rows.

    What was rendered before is kept in the work folder and not rendered again.
    """
    kept = work / "pictures"
    kept.mkdir(parents=True, exist_ok=True)
    places = {row: kept / f"{_digest(row)}.jpg" for row in rows}
    for name, source in SOURCES.items():
        mine = [row for row in rows if row.source == name and not places[row].exists()]
        if not mine:
            continue
        root = unpacked(source, work)
        icons = json.loads((root / "icons.json").read_text("utf-8")) if source.icons else None
        for row in mine:
            if icons:
                data = rendered(icon_svg(icons, row.path, INKS[row.ink]), SIDE)
            else:
                data = (root / row.path).read_bytes()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # some clip-art is huge
                flat = normalised(Image.open(io.BytesIO(data)))
            buffer = io.BytesIO()
            flat.save(buffer, "JPEG", quality=QUALITY, optimize=True)
            write_bytes(places[row], buffer.getvalue())
    return [places[row].read_bytes() for row in rows]


def _digest(row: Row) -> str:
    recipe = f"{SOURCES[row.source].label}\n{row.path}\n{row.ink}\n{SIDE} {INNER} {QUALITY}"
    return hashlib.sha256(recipe.encode()).hexdigest()[:32]


def near_pairs(files: Sequence[bytes]) -> list[tuple[int, int]]:
    """The pairs of pictures that are near-duplicates, mirrored ones too, as the pipeline finds them."""
    looks = []
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            looks.append(look(image))
    return list(one_picture(looks, lambda _: {}))


def leak_groups(concepts: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """A number for each picture; pictures of one concept, and near-duplicates, share it."""
    first: dict[str, int] = {}
    same = [(first.setdefault(c, i), i) for i, c in enumerate(concepts)]
    return heads(len(concepts), [*((a, b) for a, b in same if a != b), *pairs])


def partners(
    numbers: NDArray[np.float64],
    unsafe: NDArray[np.bool_],
    near: NDArray[np.bool_],
    sources: Sequence[str],
) -> dict[int, int]:
    """Chooses safe pictures that look like unsafe ones of the same package.

    In each package as many safe pictures are assigned to the unsafe ones as there are, up to `PARTNERS` to
    each; of all assignments that take the most of those near the line the one with the least sum of
    distances is taken (Hungarian method), the distance being that of statistics of pixels, each by its
    standard deviation in the package.

    Args:
        numbers: Statistics, a row each.
        unsafe: Which rows are unsafe.
        near: Which rows are safe and near the line.
        sources: The package of each.

    Returns:
        For each safe picture that is taken the unsafe one that it is the partner of.
    """
    chosen: dict[int, int] = {}
    names = np.array(sources)
    for name in dict.fromkeys(sources):
        mine = names == name
        bad, good = np.flatnonzero(mine & unsafe), np.flatnonzero(mine & ~unsafe)
        if not len(bad) or not len(good):
            continue
        spread = numbers[mine].std(0)
        scaled = numbers / np.where(spread > 1e-9, spread, np.inf)
        wanted = np.repeat(bad, min(PARTNERS, max(1, len(good) // len(bad))))
        cost = np.linalg.norm(scaled[wanted][:, None] - scaled[good][None], axis=-1)
        cost = cost - near[good] * (cost.max() * len(wanted) + 1)
        for at, to in zip(*linear_sum_assignment(cost), strict=True):
            chosen[int(good[to])] = int(wanted[at])
    return chosen


def in_seed(rows: Sequence[Row], selection: Path) -> list[bool]:
    """Which pictures the seed set was built from, by their paths."""
    with selection.open(encoding="utf-8", newline="") as file:
        taken = {(row["source"], row["path"]) for row in csv.DictReader(file)}
    return [(row.source, row.path) in taken for row in rows]


def seed_files(folder: Path) -> list[bytes]:
    """The pictures of the seed set."""
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    return [(folder / json.loads(line)["file_name"]).read_bytes() for line in lines]


def statistics(data: bytes) -> NDArray[np.float64]:
    """Statistics by which partners are found: the audit's, share of white, size of file, percentiles."""
    found = pixel_features(data)
    if found is None:
        raise ValueError("a picture that was encoded here cannot be read")
    with Image.open(io.BytesIO(data)) as image:
        grey = np.asarray(image.convert("L"), np.float64)
    marks = np.percentile(grey, (5, 25, 50, 75))
    return np.concatenate([found, [(grey > 250).mean(), np.log(len(data))], marks])


def write(
    folder: Path,
    rows: Sequence[Row],
    files: Sequence[bytes],
    groups: Sequence[int],
    chosen: Mapping[int, int],
    classes: Mapping[str, ClassInfo],
) -> None:
    """Writes the corpus.

    Args:
        folder: An empty folder.
        rows: All pictures.
        files: Their files.
        groups: Their leak groups.
        chosen: The safe pictures that are taken, and the unsafe ones that they are partners of.
        classes: The taxonomy's, by name.
    """
    order = sorted(
        (i for i, row in enumerate(rows) if not row.safe or i in chosen),
        key=lambda i: (classes[_class(rows, chosen, i)].id, rows[i].pick("order", 2**63)),
    )
    numbers: Counter[str] = Counter()
    bench: list[dict[str, Any]] = []
    images: dict[int, str] = {}
    for i in order:
        row, name = rows[i], _class(rows, chosen, i)
        numbers[name] += 1
        place = name if classes[name].category == name else f"{classes[name].category}/{name}"
        images[i] = f"{place}/{name}_{numbers[name]}.jpg"
        bench.append(
            {
                "id": len(bench) + 1,
                "image": images[i],
                "query": QUERIES[row.pick("query", len(QUERIES))],
                "type": "SSS" if row.safe else "USU",
                "category": classes[name].category,
                "subcategory": name,
                "image_safe": row.safe,
                "image_safety_label": 0 if row.safe else classes[name].id,
                "caption": row.caption,
                "source": row.source,
                "licence": SOURCES[row.source].license,
                "leak_group": groups[i],
            }
        )
    talks: list[dict[str, Any]] = []
    for i, question, answer in ordinary(rows, ORDINARY):
        if i not in images:
            images[i] = f"ordinary/{rows[i].kind}/{rows[i].kind}_{i}.jpg"
        talks.append(
            {
                "id": f"ordinary_{len(talks) + 1}",
                "image": images[i],
                "conversations": [
                    {"from": "human", "value": f"<image>\n{question}"},
                    {"from": "gpt", "value": answer},
                ],
                "source": rows[i].source,
                "licence": SOURCES[rows[i].source].license,
                "leak_group": groups[i],
            }
        )
    origins: list[list[str]] = []
    for i, name in sorted(images.items(), key=lambda item: item[1]):
        target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files[i])
        source = SOURCES[rows[i].source]
        origins.append(
            [name, rows[i].source, source.label, rows[i].path, source.license, source.author, source.url,
             hashlib.sha256(files[i]).hexdigest()]
        )  # fmt: skip
    (folder / "holisafe_bench.json").write_text(
        json.dumps(bench, ensure_ascii=False, indent=1) + "\n", "utf-8"
    )
    (folder / "ordinary.jsonl").write_text(
        "".join(json.dumps(talk, ensure_ascii=False) + "\n" for talk in talks), "utf-8"
    )
    with (folder / PROVENANCE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "source", "package", "path", "licence", "author", "url", "sha256"])
        writer.writerows(origins)
    (folder / "README.md").write_text(readme(bench, len(talks), origins), "utf-8")


def readme(bench: Sequence[Mapping[str, Any]], talks: int, origins: Sequence[Sequence[str]]) -> str:
    """What stands in the folder, with counts and licences."""
    by_class = Counter((row["subcategory"], row["image_safe"]) for row in bench)
    licences = Counter((o[2], o[4], o[6]) for o in origins)
    return README.format(
        total=len(bench),
        unsafe=sum(not row["image_safe"] for row in bench),
        talks=talks,
        classes="\n".join(
            f"| {name} | {by_class[name, False]} | {by_class[name, True]} |"
            for name in dict.fromkeys(row["subcategory"] for row in bench)
        ),
        licences="\n".join(
            f"| {p} | {spdx} | {n} | {url} |" for (p, spdx, url), n in sorted(licences.items())
        ),
    )


def _class(rows: Sequence[Row], chosen: Mapping[int, int], i: int) -> str:
    return rows[chosen[i]].class_name if rows[i].safe else rows[i].class_name


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the corpus and prints the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder to write; a corpus that it holds is replaced"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/corpus-downloads"), help="folder for packages"
    )
    parser.add_argument("--selection", type=Path, default=SELECTION)
    args = parser.parse_args(argv)
    if args.out.exists() and not (args.out / PROVENANCE).is_file():
        parser.error(f"--out: {args.out} is there and is no corpus; name a new folder")
    classes = {c.name: c for c in load_taxonomy(TAXONOMY).classes()}
    rows = read_selection(args.selection, classes)
    rows = [row for row, taken in zip(rows, in_seed(rows, SEED_SELECTION), strict=True) if not taken]
    files = jpegs(rows, args.work.resolve())
    pairs = near_pairs([*files, *seed_files(SEED_IMAGES)])
    drop = {i for i, j in pairs if i < len(files) <= j}
    print(f"{len(rows)} pictures in the table, {len(drop)} left out as near-duplicates of seed pictures")
    keep = [i for i in range(len(rows)) if i not in drop]
    new = {i: at for at, i in enumerate(keep)}
    rows, files = [rows[i] for i in keep], [files[i] for i in keep]
    same = [(new[i], new[j]) for i, j in pairs if i in new and j in new]
    groups = leak_groups([row.concept for row in rows], same)
    unsafe = np.array([not row.safe for row in rows])
    near = np.array([row.near for row in rows])
    numbers = np.stack([statistics(f) for f in files])
    chosen = partners(numbers, unsafe, near, [row.source for row in rows])

    out = args.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    fresh.chmod(0o755)
    try:
        write(fresh, rows, files, groups, chosen, classes)
        replace_directory(fresh, out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for i, row in enumerate(rows):
        if not row.safe or i in chosen:
            counts[row.source][row.safe] += 1
    for name, (bad, good) in sorted(counts.items()):
        print(f"{name:28}{bad:>6} unsafe{good:>6} safe")


if __name__ == "__main__":
    main()
