"""Sources of every kind end in the same rows; what is wrong is a failure with its place."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageOps

from pipeline.collect import run
from pipeline.collect.pdq import pdq_hashes
from pipeline.collect.stage import check
from pipeline.runner import stage_files, stage_key
from pipeline.stages import STAGES
from pipeline.store import TableWriter
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from tests.conftest import REPOSITORY, make_workspace
from tests.images import encoded, picture
from tests.web import image, site

CLASS = "medical_advice"
SAID = {
    "caption": "a bottle on a table", "subject": "a bottle", "objects": ["bottle", "table"], "class": CLASS,
    "safe": True, "license": "CC BY 2.0", "author": "Jane", "page_url": "https://pictures.example/1",
    "retrieved_at": "2025-01-02T03:04:05+00:00", "source_package": "",
}  # fmt: skip
LIMIT = {"safe": 50, "unsafe": 50}


def workspace(root: Path, *sources: dict[str, Any], **collect: Any) -> Workspace:
    make_workspace(root, [CLASS])
    import yaml

    params = yaml.safe_load((root / "params.yaml").read_text())
    quick = {"allow_private": True, "delay_s": 0.0, "pause_s": 0.01, "total_s": 2.0}
    fetch = params["collect"]["fetch"] | quick | collect.pop("fetch", {})
    params["collect"] |= {"sources": list(sources), "per_class": LIMIT, "fetch": fetch} | collect
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return Workspace(root)


def collected(space: Workspace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and failures of the stage."""
    space.check()
    out = space.root / "out"
    run(space, out, Silent())
    return tuple(pq.read_table(out / f"{n}.parquet").to_pylist() for n in ("images", "failures"))  # type: ignore[return-value]


def reasons(failures: list[dict[str, Any]]) -> dict[str, str]:
    return {f["source"]: f["reason"] for f in failures}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        flat = [{k: ";".join(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        writer.writerows(flat)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_every_kind_ends_with_the_same_row(tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = []
    for kind in ("jsonl", "csv", "parquet"):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "p.png").write_bytes(image(1))
        row = {"file_name": "p.png", **SAID}
        sources.append({"kind": "folder", "path": kind})
        if kind == "jsonl":
            (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
        else:
            {"csv": write_csv, "parquet": write_parquet}[kind](folder / f"metadata.{kind}", [row])
    renamed = {"their_class" if k == "class" else k: v for k, v in SAID.items()}
    columns = {"class": "their_class"}
    write_tar(tmp_path / "w" / "0.tar", [("a/1.png", image(1)), ("a/1.json", json.dumps(renamed).encode())])
    sources.append({"kind": "webdataset", "path": "w/*.tar", "columns": columns})
    write_tar(tmp_path / "i" / "00000.tar", [("000000001.png", image(1))])
    write_parquet(
        tmp_path / "i" / "00000.parquet",
        [
            {"url": "https://x.example/1.png", "key": "000000001", "status": "success", **renamed},
            {"url": "https://x.example/2.png", "key": "000000002", "status": "failed_to_download", **renamed},
        ],
    )
    sources.append({"kind": "img2dataset", "path": "i", "columns": columns})
    write_parquet(tmp_path / "h" / "data.parquet", [{"image": {"bytes": image(1), "path": None}, **renamed}])
    sources.append({"kind": "hub", "path": "h", "columns": columns})
    with site() as served:
        for end, write in (("csv", write_csv), ("parquet", write_parquet)):
            url = served.url("/picture/1.png", "127.0.0.1")
            write(tmp_path / f"urls.{end}", [{"link": url, **renamed}])
            sources.append({"kind": "urls", "path": f"urls.{end}", "columns": {**columns, "url": "link"}})
        rows, failures = collected(workspace(tmp_path / ".", *sources))
    assert [f["reason"] for f in failures] == ["not downloaded"]
    kinds = ["folder", "folder", "folder", "webdataset", "img2dataset", "hub", "urls", "urls"]
    assert [r["source_kind"] for r in rows] == kinds
    assert all(r["retrieved_at"] > "2025-01-02T03:04:05" for r in rows if r["source_kind"] == "urls")
    own = {"source_uri", "source_kind"}
    same = [{k: v for k, v in r.items() if k not in own} for r in rows]
    same = [r | {"retrieved_at": SAID["retrieved_at"]} for r in same]
    assert all(r == same[0] for r in same)
    assert same[0]["licence"] == "CC-BY-2.0"
    assert same[0]["image_id"] == hashlib.sha256(image(1)).hexdigest()


def test_class_folders_and_what_stands_for_all_of_a_source(tmp_path: Path) -> None:
    for name in ("fine/a.png", "fine/deep/b.png", "odd/c.png", "fine/notes.txt"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_bytes(image(len(name)))
    (tmp_path / "c" / "fine" / "away.png").symlink_to("/etc/hostname")
    source = {
        "kind": "class_folders", "path": "c", "folders": {"fine": {"class": CLASS, "safe": True}},
        "license": "MIT", "author": "A", "page_url": "https://p.example/",
    }  # fmt: skip
    rows, failures = collected(workspace(tmp_path, source))
    assert [r["source_uri"] for r in rows] == ["c/fine/a.png", "c/fine/deep/b.png"]
    assert {(r["licence"], r["author"], r["page_url"], r["caption"]) for r in rows} == {
        ("MIT", "A", "https://p.example/", "")
    }
    assert reasons(failures) == {
        "c/odd": "folder without a class",
        "c/fine/away.png": "path outside the source",
        "c/fine/notes.txt": "no image",
    }


@pytest.mark.parametrize("end", ["jsonl", "csv", "parquet"])
def test_a_bad_row_is_a_failure_that_names_its_line(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png", "extra.png"):
        (folder / name).write_bytes(image(ord(name[0])))
    plain = {"file_name": "a.png", **SAID}
    lines = [
        plain,
        plain | {"file_name": "b.png", "page_url": "javascript:alert(1)"},
        plain | {"file_name": "c.png", "license": "found it somewhere"},
        plain | {"file_name": "d.png", "retrieved_at": "yesterday"},
        plain | {"file_name": "missing.png"},
        plain | {"file_name": "../../etc/passwd"},
        plain,
    ]
    if end == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "[]\n")
    else:
        {"csv": write_csv, "parquet": write_parquet}[end](folder / f"metadata.{end}", lines)
    rows, failures = collected(workspace(tmp_path, {"kind": "folder", "path": "f"}))
    assert [r["source_uri"] for r in rows] == ["f/a.png"]
    found = {f["source"]: f for f in failures}
    assert found["f/b.png"]["reason"] == found["f/d.png"]["reason"] == "row not valid"
    number = {"jsonl": "line 2", "csv": "line 3", "parquet": "row 2"}[end]
    assert found["f/b.png"]["detail"].startswith(f"metadata.{end}: {number}: page_url:")
    assert found["f/c.png"]["reason"] == "unknown licence"
    assert found["f/missing.png"]["reason"] == "row without its file"
    assert found["f/../../etc/passwd"]["reason"] == "path outside the source"
    assert found["f/a.png"]["reason"] == "named twice"
    assert found["f/extra.png"]["reason"] == "file without a row"


def test_an_unknown_licence_is_kept_where_params_say_so(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.png").write_bytes(image(1))
    write_csv(tmp_path / "f" / "metadata.csv", [{"file_name": "a.png", **SAID, "license": "?"}])
    rows, _ = collected(workspace(tmp_path, {"kind": "folder", "path": "f", "unknown_licence": "keep"}))
    assert (rows[0]["licence"], rows[0]["redistributable"]) == ("NOASSERTION", "unknown")


def test_broken_csv_rows(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_bytes(
        b"url,class,safe\n" + b"http://a,b\n" + b"http://b\xff,x,1\n" + b",x,1\n"
    )
    rows, failures = collected(workspace(tmp_path, {"kind": "urls", "path": "u.csv"}))
    assert rows == []
    assert [f["detail"].split(":")[1] for f in failures] == [" line 2", " line 3", " line 4"]


@pytest.mark.parametrize(
    ("name", "content", "source", "says"),
    [
        ("f/metadata.jsonl", b"{nope\n", {"kind": "folder", "path": "f"}, "line 1: not JSON"),
        ("f/metadata.csv", b"name\nx\n", {"kind": "folder", "path": "f"}, "no column file_name"),
        ("f/metadata.csv", b"file_name,colour\n", {"kind": "folder", "path": "f"}, "unknown column 'colour'"),
        ("f/metadata.parquet", b"PAR1", {"kind": "folder", "path": "f"}, "not readable as Parquet"),
        ("f/x", b"", {"kind": "folder", "path": "f"}, "an imagefolder needs it"),
        ("u.csv", b"link\n", {"kind": "urls", "path": "u.csv"}, "no column url"),
        ("u.csv", b"url\n", {"kind": "urls", "path": "u.csv", "columns": {"class": "c"}}, "no column 'c'"),
        ("f/x", b"", {"kind": "urls", "path": "u.csv"}, "is no file"),
        ("f/x", b"", {"kind": "webdataset", "path": "f/*.tar"}, "fits no file"),
        ("f/x", b"", {"kind": "webdataset", "path": "/f/*.tar"}, "match pattern"),
        ("f/x", b"", {"kind": "img2dataset", "path": "f"}, "no tar files"),
        ("f/x", b"", {"kind": "hub", "dataset": "a/b"}, "revision"),
        ("f/x", b"", {"kind": "hub", "path": "f", "intended": {"class": "nope", "safe": True}}, "'nope'"),
        (
            "f/x/y", b"",
            {"kind": "class_folders", "path": "f", "folders": {"z": {"class": CLASS, "safe": True}}},
            "no folder 'z'",
        ),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_read_is_an_error_before_any_work(
    tmp_path: Path, name: str, content: bytes, source: dict[str, Any], says: str
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        workspace(tmp_path, source).check()


def test_hostile_tar_files(tmp_path: Path) -> None:
    said = json.dumps(SAID).encode()
    path = tmp_path / "w" / "0.tar"
    write_tar(
        path,
        [
            ("../up.png", image(1)), ("/abs.png", image(1)), ("a/../../b.png", image(1)),
            ("good.png", image(2)), ("good.json", said), ("two.png", image(1)), ("two.jpg", image(1)),
            ("words.json", said), ("bad.png", image(1)), ("bad.json", b"{"), ("good.png", image(3)),
        ],
    )  # fmt: skip
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    whole = path.read_bytes()
    (tmp_path / "w" / "1.tar").write_bytes(whole[:5000])
    (tmp_path / "w" / "2.tar").write_bytes(b"no tar file" * 100)
    rows, failures = collected(workspace(tmp_path, {"kind": "webdataset", "path": "w/*.tar"}))
    assert [r["source_uri"] for r in rows if "0.tar" in r["source_uri"]] == ["w/0.tar!good.png"]
    assert rows[0]["bytes"] == image(2)
    found = reasons(failures)
    for name in ("../up.png", "/abs.png", "a/../../b.png"):
        assert found[f"w/0.tar!{name}"] == "path outside the source"
    assert found["w/0.tar!link.png"] == "no plain file"
    assert found["w/0.tar!two"] == found["w/0.tar!good"] == "named twice"
    assert found["w/0.tar!words"] == "row without its file"
    assert found["w/0.tar!bad"] == "row not valid"
    assert found["w/1.tar"] == found["w/2.tar"] == "damaged tar file"


@pytest.mark.parametrize("damage", ["header", "zeros", "cut", "cut inside", "two files"])
def test_a_tar_file_that_is_damaged_says_so_and_gives_what_stands_before(tmp_path: Path, damage: str) -> None:
    said = json.dumps(SAID).encode()
    path = tmp_path / "w" / "0.tar"
    write_tar(path, [part for n in range(6) for part in ((f"{n}.png", image(n)), (f"{n}.json", said))])
    with tarfile.open(path) as tar:
        at = tar.getmembers()[6].offset
    whole = path.read_bytes()
    path.write_bytes(
        {
            "header": whole[:at] + bytes(range(256)) * 2 + whole[at + 512 :],
            "zeros": whole[:at] + bytes(1024) + whole[at + 1024 :],
            "cut": whole[:at],
            "cut inside": whole[: at + 100],
            "two files": whole + whole,
        }[damage]
    )
    rows, failures = collected(workspace(tmp_path, {"kind": "webdataset", "path": "w/*.tar"}))
    assert len(rows) == (6 if damage == "two files" else 3)
    assert reasons(failures)["w/0.tar"] == "damaged tar file"


def test_a_tar_file_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.png").tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # a size of -512, in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "0.tar").write_bytes(bytes(header) + bytes(2048))
    rows, failures = collected(workspace(tmp_path, {"kind": "webdataset", "path": "w/*.tar"}))
    assert rows == []
    assert reasons(failures)["w/0.tar"] == "damaged tar file"


def test_a_quote_that_nobody_closes_is_told(tmp_path: Path) -> None:
    lines = ["url,class,safe,license,caption"]
    lines += [
        f"http://a.example/{n}.png,{CLASS},true,CC0,{chr(34) if n == 2 else ''}words" for n in range(20)
    ]
    (tmp_path / "u.csv").write_text("\n".join(lines))
    _, failures = collected(workspace(tmp_path, {"kind": "urls", "path": "u.csv"}))
    (told,) = [row for row in failures if row["reason"] == "row not valid"]
    assert "line 4 to 21" in told["detail"]


def test_odd_files_in_folders_are_rows_and_the_rest_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "good.png").write_bytes(image(1))
    (folder / "round.png").symlink_to("round.png")
    os.mkfifo(folder / "pipe.png")
    with open(os.fsencode(folder) + b"/\xe9.png", "wb") as file:
        file.write(image(2))
    names = ["good.png", "round.png", "pipe.png", "x" * 300 + ".png", "half\ud800.png", "a\udc80.png"]
    lines = [json.dumps({"file_name": name, **SAID}) for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    rows, failures = collected(workspace(tmp_path, {"kind": "folder", "path": "f"}))
    assert [row["source_uri"] for row in rows] == ["f/good.png"]
    assert [row["reason"] for row in failures] == [
        *["row without its file"] * 2, *["row not valid"] * 3, "file without a row"
    ]  # fmt: skip
    source = {
        "kind": "class_folders", "path": "c", "license": "MIT",
        "folders": {"f": {"class": CLASS, "safe": True}},
    }  # fmt: skip
    other = tmp_path / "other"
    (other / "c").mkdir(parents=True)
    folder.rename(other / "c" / "f")
    rows, failures = collected(workspace(other, source))
    assert [row["source_uri"] for row in rows] == ["c/f/good.png"]
    found = {row["source"].rpartition("/")[2]: row["reason"] for row in failures}
    assert found["\\udce9.png"] == "row not valid"
    assert found["round.png"] == "cannot be read"
    assert found["pipe.png"] == "cannot be read"
    assert found["metadata.jsonl"] == "no image"


def test_folders_that_overlap_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c" / "a" / "b").mkdir(parents=True)
    folders = {"a": {"class": CLASS, "safe": True}, "a/b": {"class": CLASS, "safe": False}}
    space = workspace(tmp_path, {"kind": "class_folders", "path": "c", "folders": folders})
    with pytest.raises(InputError, match="folders that do not overlap"):
        check(space)


def test_a_column_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    table = pa.table([["u"], ["All rights reserved"], ["CC0"]], names=["url", "license", "license"])
    pq.write_table(table, tmp_path / "u.parquet")
    with pytest.raises(InputError, match=r"u\.parquet: the column 'license' stands twice"):
        check(workspace(tmp_path, {"kind": "urls", "path": "u.parquet"}))


def test_numbers_and_times_are_read_as_what_they_mean(tmp_path: Path) -> None:
    when = dt.datetime(2024, 5, 6, 7, 8, 9)  # noqa: DTZ001 - as tables hold them
    row = {"image": {"bytes": image(1), "path": None}, **SAID, "license": 4, "retrieved_at": when}
    write_parquet(tmp_path / "h" / "d.parquet", [row])
    (got,), failures = collected(workspace(tmp_path, {"kind": "hub", "path": "h"}))
    assert (got["licence"], got["retrieved_at"]) == ("CC-BY-2.0", "2024-05-06T07:08:09")
    assert failures == []


def test_images_that_were_stored_before_they_were_listed_all_go(tmp_path: Path) -> None:
    with site() as served:
        write_csv(
            tmp_path / "u.csv",
            [{"url": served.url(f"/picture/{n}.png", "127.0.0.1"), **SAID} for n in range(6)],
        )
        source = {"kind": "urls", "path": "u.csv"}
        rows, _ = collected(workspace(tmp_path, source))
        assert len(rows) == 6
        listed = [hashlib.sha256(image(n)).hexdigest() for n in (1, 3, 5)]
        (tmp_path / "listed.txt").write_text("\n".join(listed))
        params = yaml.safe_load((tmp_path / "params.yaml").read_text())
        params["collect"]["block_lists"] = [{"kind": "sha256", "path": "listed.txt"}]
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        rows, failures = collected(Workspace(tmp_path))
    kept = {
        path.parent.name + path.name for path in (tmp_path / ".holisafe" / "fetched" / "blobs").rglob("??/*")
    }
    assert not kept & set(listed)
    assert set(listed) <= {row["item_id"] for row in failures if row["reason"] == "on a block list"}


def test_a_large_picture_does_not_wait_for_a_hundred_others(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.parquet", pa.schema([("bytes", pa.binary())])) as rows:
        for _ in range(5):
            rows.write({"bytes": bytes(30_000_000)})
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 2


def test_a_dataset_of_zipped_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for where in (tmp_path, tmp_path / "p"):
        with zipfile.ZipFile(where / "pictures.bin", "w") as packed:
            for n in range(3):
                packed.writestr(f"{n}.png", image(n))
    paths = [f"zip://{n}.png::{tmp_path}/p/pictures.bin" for n in range(4)]
    paths += [f"zip://0.png::{tmp_path}/pictures.bin", "tar://x.png::/etc/hostname", "a\0b.png"]
    rows = [{"image": {"bytes": None, "path": path}, **SAID} for path in paths]
    write_parquet(tmp_path / "p" / "d.parquet", rows)
    got, failures = collected(workspace(tmp_path, {"kind": "hub", "path": "p"}))
    assert [row["bytes"] for row in got] == [image(n) for n in range(3)], failures
    found = [row["reason"] for row in failures]
    assert found == ["cannot be read", "path outside the source", "path outside the source", "cannot be read"]


def test_a_hub_row_that_names_a_file_of_this_machine_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(image(1))
    rows = [{"image": {"bytes": None, "path": str(tmp_path / "secret.png")}, **SAID}]
    rows += [{"image": {"bytes": image(2), "path": None}, **SAID}]
    write_parquet(tmp_path / "h" / "d.parquet", rows)
    got, failures = collected(workspace(tmp_path, {"kind": "hub", "path": "h"}))
    assert [r["source_uri"] for r in got] == ["h!train/1"]
    assert reasons(failures) == {"h!train/0": "path outside the source"}


def test_an_image_that_fails_gives_its_place_to_the_next(tmp_path: Path) -> None:
    with site() as served:
        urls = [
            served.url(f"/{'picture' if n % 5 == 0 else 'missing'}/{n}.png", "127.0.0.1") for n in range(300)
        ]
        write_csv(tmp_path / "u.csv", [{"url": u, **SAID} for u in urls])
        space = workspace(tmp_path, {"kind": "urls", "path": "u.csv"}, per_class={"safe": 40, "unsafe": 1})
        rows, failures = collected(space)
        assert len(rows) == 40
        assert all("/picture/" in r["source_uri"] for r in rows)
        asked = {path for path in served.asked if "robots" not in path}
        assert len(asked) == 40 + len(failures) < 300, "no more is fetched than is needed"


def test_too_large_a_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.png").write_bytes(bytes(2000))
    write_csv(tmp_path / "f" / "metadata.csv", [{"file_name": "a.png", **SAID}])
    rows, failures = collected(workspace(tmp_path, {"kind": "folder", "path": "f"}, max_bytes=1000))
    assert (rows, reasons(failures)) == ([], {"f/a.png": "too large"})


@pytest.mark.parametrize("kind", ["sha256", "pdq"])
def test_an_image_on_a_block_list_leaves_its_hash_and_stops_its_source(tmp_path: Path, kind: str) -> None:
    photo = next((REPOSITORY / "data" / "seed").rglob("x_ray_of_a_hand_*.jpg"))
    original = Image.open(photo).convert("RGB")
    data = encoded(original, "PNG")
    listed = hashlib.sha256(data).hexdigest() if kind == "sha256" else pdq_hashes(data)[0].tobytes().hex()
    sent = (
        data
        if kind == "sha256"
        else encoded(ImageOps.mirror(original).resize((180, 180)), "JPEG", quality=70)
    )
    for name, content in (("bad/a.png", sent), ("good/a.png", image(7))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
        write_csv((tmp_path / name).with_name("metadata.csv"), [{"file_name": "a.png", **SAID}])
    (tmp_path / "list.txt").write_text(f"# known\n{listed}\n")
    sources = [{"kind": "folder", "path": p} for p in ("bad", "good")]
    space = workspace(tmp_path, *sources, block_lists=[{"kind": kind, "path": "list.txt"}])
    rows, failures = collected(space)
    assert [r["source_uri"] for r in rows] == ["good/a.png"]
    assert reasons(failures) == {"bad/a.png": "on a block list", "bad": "source stopped"}
    assert failures[0]["detail"].startswith(f"{kind} {listed} at 20")
    assert "list.txt" in stage_files(space, STAGES["collect"])
    (tmp_path / "list.txt").write_text("abc\n")
    with pytest.raises(InputError, match="line 1: a hash is 64"):
        space.check()


def test_pdq_is_what_the_reference_gives() -> None:
    # By the package pdqhash 0.2.8, which wraps the reference.
    expected = "8418df3edfbe921cdd3e963c4c0db64f425e852d5eda3a503da1393259321e41"
    assert pdq_hashes(encoded(picture(301, 177, seed=4), "PNG"))[0].tobytes().hex() == expected
    assert len(pdq_hashes(b"no image")) == 0


def test_the_stage_key_knows_what_a_source_reads(tmp_path: Path) -> None:
    write_tar(tmp_path / "w" / "0.tar", [("a.png", image(1))])
    (tmp_path / "u.csv").write_text("url\nhttp://a.example/1.png\n")
    space = workspace(tmp_path, {"kind": "webdataset", "path": "w/*.tar"}, {"kind": "urls", "path": "u.csv"})
    assert {"w/0.tar", "u.csv"} <= set(stage_files(space, STAGES["collect"]))
    before = stage_key(space, STAGES["collect"])
    (tmp_path / "u.csv").write_text("url\nhttp://a.example/2.png\n")
    assert stage_key(space, STAGES["collect"]) != before


COLLECT = """
import sys
from pathlib import Path
from pipeline.collect import run
from pipeline.workspace import Silent, Workspace
root = Path(sys.argv[1])
run(Workspace(root), root / "out", Silent())
"""


def test_killed_ten_times_nothing_that_was_stored_is_fetched_twice(tmp_path: Path) -> None:
    count = 150
    with site() as served:
        served.pause = 0.05
        calm, killed = tmp_path / "calm", tmp_path / "killed"
        for root in (calm, killed):
            root.mkdir()
            urls = [served.url(f"/picture/{n}.png", "127.0.0.1") for n in range(count)]
            write_csv(root / "u.csv", [{"url": u, **SAID} for u in urls])
            at_once = {"at_once_per_host": 4}
            limits = {"safe": count, "unsafe": 0}
            workspace(root, {"kind": "urls", "path": "u.csv"}, fetch=at_once, per_class=limits)
        expected, _ = collected(Workspace(calm))
        served.asked.clear()
        rng = random.Random(5)  # noqa: S311
        kills, stored_before = 0, 0
        asked_when_stored: dict[str, int] = {}
        for _ in range(10):
            child = subprocess.Popen([sys.executable, "-c", COLLECT, str(killed)], env=os.environ)
            deadline = time.monotonic() + 20
            target = stored_before + rng.randint(0, 12)
            while child.poll() is None and len(stored(killed)) < target and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(rng.random() * 0.1)
            if child.poll() is None:
                kills += 1
                child.send_signal(signal.SIGKILL)
            child.wait()
            stored_before = len(stored(killed))
            for url in stored(killed):
                path = "127.0.0.1" + url.partition(str(served.port))[2]
                asked_when_stored.setdefault(path, served.asked[path])
        assert kills == 10
        got, _ = collected(Workspace(killed))
    for path, n in asked_when_stored.items():
        assert served.asked[path] == n, "what was stored is not asked for again"
    again = sum(n - 1 for path, n in served.asked.items() if "robots" not in path)
    assert again <= 4 * kills, "only what was under way when it was killed"
    assert len(asked_when_stored) > 20
    without = [{k: v for k, v in r.items() if k != "retrieved_at"} for r in got]
    assert without == [{k: v for k, v in r.items() if k != "retrieved_at"} for r in expected]


def stored(root: Path) -> set[str]:
    """The URLs that the ledger holds."""
    import sqlite3
    from contextlib import closing

    path = root / ".holisafe" / "fetched" / "ledger.sqlite"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        try:
            return {url for (url,) in connection.execute("SELECT url FROM fetched")}
        except sqlite3.OperationalError:
            return set()
