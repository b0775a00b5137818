"""Packages that pictures are taken from: fetched with the ordinary clients of their registries, never run.

Packages already in the folder for downloads are not fetched again. Needs ``npm``, ``apt-get`` with
``dpkg-deb``, and ``pip`` on the path, and ``resvg-py`` for icon sets.
"""

from __future__ import annotations

import gzip
import html
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["SOURCES", "Source", "fetch", "icon_svg", "members", "rendered", "title_and_tags", "unpacked"]


@dataclass(frozen=True)
class Source:
    """A package that pictures are taken from.

    Attributes:
        kind: ``npm``, ``deb`` or ``wheel``.
        package: Name in its registry.
        version: The only version accepted.
        root: Folder inside the package that paths start from.
        license: SPDX id of its pictures, unless a picture names another.
        author: Author of its pictures, unless a picture names another.
        url: Where its pictures come from, unless a picture names another place.
        icons: Whether the package is one JSON file of SVG bodies instead of image files.
    """

    kind: str
    package: str
    version: str
    root: str
    license: str
    author: str
    url: str
    icons: bool = False

    @property
    def label(self) -> str:
        """Package and version, as ``metadata.jsonl`` names them."""
        return f"{self.kind} {self.package} {self.version}"


def icon_set(name: str, version: str, license_id: str, author: str, url: str) -> Source:
    """A set of icons that Iconify packs for npm."""
    return Source("npm", f"@iconify-json/{name}", version, "package/", license_id, author, url, icons=True)


SOURCES: dict[str, Source] = {
    "fluent-emoji-3d": Source(
        "npm", "@lobehub/fluent-emoji-3d", "1.1.0", "package/", "MIT",
        "Microsoft Corporation, packaged by LobeHub", "https://github.com/lobehub/fluent-emoji",
    ),
    "fluent-emoji-flat": icon_set(
        "fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Corporation", "https://github.com/microsoft/fluentui-emoji"
    ),
    "noto-emoji": icon_set("noto", "1.2.9", "Apache-2.0", "Google Inc.", "https://github.com/googlefonts/noto-emoji"),
    "openmoji": icon_set("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji", "https://openmoji.org"),
    "twemoji": icon_set(
        "twemoji", "1.2.5", "CC-BY-4.0", "Twitter, Inc. and other contributors", "https://github.com/jdecked/twemoji"
    ),
    "game-icons": icon_set(
        "game-icons", "1.2.4", "CC-BY-3.0", "Lorc, Delapouite and other authors of game-icons.net",
        "https://game-icons.net",
    ),
    "healthicons": icon_set("healthicons", "1.2.13", "MIT", "Resolve to Save Lives", "https://healthicons.org"),
    "openclipart": Source(
        "deb", "openclipart-png", "1:0.18+dfsg-19", "./usr/share/openclipart/png/", "LicenseRef-PublicDomain",
        "Open Clip Art Library", "https://openclipart.org",
    ),
    "tuxpaint-stamps": Source(
        "deb", "tuxpaint-stamps-default", "2022.06.04-1", "./usr/share/tuxpaint/stamps/", "GPL-2.0-or-later",
        "Bill Kendrick and the Tux Paint contributors", "https://tuxpaint.org/stamps/",
    ),
    "scikit-image": Source(
        "wheel", "scikit-image", "0.26.0", "skimage/data/", "CC0-1.0", "scikit-image contributors",
        "https://scikit-image.org/docs/stable/api/skimage.data.html",
    ),
    "scikit-learn": Source(
        "wheel", "scikit-learn", "1.9.1", "sklearn/datasets/images/", "CC-BY-2.0",
        "scikit-learn contributors", "https://scikit-learn.org/stable/datasets/loading_other_datasets.html",
    ),
    "emojione": icon_set("emojione", "1.2.3", "CC-BY-4.0", "Emoji One", "https://github.com/EmojiTwo/emojitwo"),
    "fa6-solid": icon_set("fa6-solid", "1.2.4", "CC-BY-4.0", "Fonticons, Inc.", "https://fontawesome.com"),
    "flat-color-icons": icon_set("flat-color-icons", "1.2.3", "MIT", "Icons8", "https://github.com/icons8/flat-color-icons"),
    "fluent-emoji-high-contrast": icon_set(
        "fluent-emoji-high-contrast", "1.2.6", "MIT", "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "fxemoji": icon_set("fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "https://github.com/mozilla/fxemoji"),
    "icon-park": icon_set("icon-park", "1.2.4", "Apache-2.0", "ByteDance", "https://github.com/bytedance/IconPark"),
    "mdi": icon_set(
        "mdi", "1.2.3", "Apache-2.0", "Pictogrammers", "https://github.com/Templarian/MaterialDesign"
    ),
    "noto-v1": icon_set("noto-v1", "1.2.5", "Apache-2.0", "Google Inc.", "https://github.com/googlefonts/noto-emoji"),
    "streamline-freehand-color": icon_set(
        "streamline-freehand-color", "1.2.2", "CC-BY-4.0", "Streamline", "https://www.streamlinehq.com"
    ),
    "streamline-ultimate-color": icon_set(
        "streamline-ultimate-color", "1.2.2", "CC-BY-4.0", "Streamline", "https://www.streamlinehq.com"
    ),
    "tabler": icon_set("tabler", "1.2.41", "MIT", "Paweł Kuna", "https://tabler.io/icons"),
    # These hold the words for pictures of others.
    "emojibase-data": Source(
        "npm", "emojibase-data", "17.0.0", "package/", "MIT", "Miles Johnson", "https://emojibase.dev",
    ),
    "openclipart-svg": Source(
        "deb", "openclipart-svg", "1:0.18+dfsg-19", "./usr/share/openclipart/svg/", "LicenseRef-PublicDomain",
        "Open Clip Art Library", "https://openclipart.org",
    ),
}  # fmt: skip


def fetch(source: Source, work: Path) -> Path:
    """Downloads a package with its registry's ordinary client, unless it is there already.

    Args:
        source: The package.
        work: Folder for downloads.

    Returns:
        The downloaded archive.

    Raises:
        RuntimeError: If another version arrived than the one the table was made with.
    """
    work.mkdir(parents=True, exist_ok=True)
    if source.kind == "npm":
        archive = work / f"{source.package.lstrip('@').replace('/', '-')}-{source.version}.tgz"
        if not archive.exists():
            subprocess.run(
                ["npm", "pack", "--silent", f"{source.package}@{source.version}"],
                cwd=work, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        return archive
    if source.kind == "deb":
        pattern = f"{source.package}_*.deb"
        if not list(work.glob(pattern)):
            subprocess.run(["apt-get", "download", "-q", source.package], cwd=work, check=True)
        archive = sorted(work.glob(pattern))[-1]
        found = subprocess.run(
            ["dpkg-deb", "-f", str(archive), "Version"], check=True, capture_output=True, text=True
        ).stdout.strip()
        if found != source.version:
            raise RuntimeError(f"{source.package}: version {found} arrived, {source.version} is needed")
        return archive
    pattern = f"{source.package.replace('-', '_')}-{source.version}-*.whl"
    if not list(work.glob(pattern)):
        pip = [shutil.which("pip")] if shutil.which("pip") else [sys.executable, "-m", "pip"]
        subprocess.run(
            [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(work),
             f"{source.package}=={source.version}"],
            check=True,
        )  # fmt: skip
    return sorted(work.glob(pattern))[-1]


def members(source: Source, archive: Path, paths: Collection[str]) -> dict[str, bytes]:
    """Reads files out of a package without unpacking or running it.

    Args:
        source: The package.
        archive: Its downloaded file.
        paths: Paths below ``source.root``.

    Returns:
        The content of each path.

    Raises:
        KeyError: If the package lacks one of the paths.
    """
    found: dict[str, bytes] = {}
    wanted = set(paths)
    if source.kind == "wheel":
        with zipfile.ZipFile(archive) as wheel:
            return {path: wheel.read(source.root + path) for path in wanted}
    with tempfile.TemporaryFile() as buffer:
        _write_tar(source, archive, buffer)
        with tarfile.open(fileobj=buffer) as tar:
            for member in tar:
                path = member.name.removeprefix(source.root)
                if path in wanted and (handle := tar.extractfile(member)):  # follows links inside the package
                    found[path] = handle.read()
    if wanted - found.keys():
        raise KeyError(f"{source.label} lacks {sorted(wanted - found.keys())}")
    return found


def unpacked(source: Source, work: Path) -> Path:
    """Fetches a package of npm or Debian and unpacks it below the folder; nothing of it is run.

    Args:
        source: The package.
        work: Folder for downloads and what is unpacked; a package that is there is not unpacked again.

    Returns:
        The folder that its paths start from.
    """
    folder = work / "unpacked" / source.package.lstrip("@").replace("/", "-")
    if not folder.exists():
        archive = fetch(source, work)
        folder.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        with tempfile.TemporaryFile() as buffer:
            _write_tar(source, archive, buffer)
            with tarfile.open(fileobj=buffer) as tar:
                tar.extractall(fresh, filter="data")
        fresh.rename(folder)
    return folder / source.root


def _write_tar(source: Source, archive: Path, buffer: IO[bytes]) -> None:
    if source.kind == "deb":
        subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], check=True, stdout=buffer)
    else:
        buffer.write(archive.read_bytes())
    buffer.seek(0)


def icon_svg(icons: dict[str, Any], name: str, ink: str) -> str:
    """Returns one icon of an icon set as an SVG document, with ``ink`` as the current colour."""
    icon = icons["icons"][name]
    box = [icon.get(k, icons.get(k, d)) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}">{icon["body"].replace("currentColor", ink)}</svg>'
    )


def rendered(svg: str, side: int = 512) -> bytes:
    """Returns an SVG document as a PNG file whose longer side has so many pixels."""
    import resvg_py  # type: ignore[import-not-found, unused-ignore]  # only what renders icons needs it

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side))


def title_and_tags(svg: Path) -> tuple[str, list[str]] | None:
    """Returns title and keywords of a drawing of Open Clip Art, as written there; None where it has none.

    Args:
        svg: Where the drawing is said to lie; it may be packed with gzip.
    """
    packed = svg.with_suffix(".svg.gz")
    if not svg.exists() and not packed.exists():
        return None
    raw = svg.read_bytes() if svg.exists() else gzip.decompress(packed.read_bytes())
    text = raw.decode("utf-8", "replace")
    title = re.search(r"<dc:title>([^<]+)</dc:title>", text)
    subject = re.search(r"<dc:subject>(.*?)</dc:subject>", text, re.DOTALL)
    if not title:
        return None
    tags = re.findall(r"<rdf:li>\s*([^<]+?)\s*</rdf:li>", subject[1]) if subject else []
    return html.unescape(title[1]), [html.unescape(t) for t in tags]
