"""`holisafe run collect` from a web server with every fault: each is a row in `failures`, the rest comes."""

from __future__ import annotations

import csv
import ssl
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
import trustme
import yaml

from pipeline.store import sha256_bytes
from tests.conftest import holisafe
from tests.web import image, site

SAID = {"class": "weapon_related_violence", "safe": "true", "license": "CC0-1.0", "subject": "a shape"}
FAULTS = {
    "/to/?u=" + quote("file:///etc/passwd"): "not a URL",
    "/loop/": "too many redirects",
    "/endless/": "timed out",
    "/silent/": "timed out",
    "/bomb/": "too large",
    "/huge/": "too large",
    "/odd/": "bad answer",
    "/short/": "incomplete body",
    "/page/": "not an image",
    "/missing/": "HTTP 404",
    "/noai/noai": "noai",
    "/noai/noimageai": "noai",
    "/private/1.png": "refused by robots.txt",
}
GOOD = {"/picture/1.png": 1, "/picture/2.png": 2, "/busy/": 2, "/zipped/": 5, "/to/?u=%2Fpicture%2F4.png": 4}


@pytest.fixture
def params(workspace: Path) -> Path:
    """Params that collect from `urls.csv`, also from this machine."""
    path = workspace / "params.yaml"
    said = yaml.safe_load(path.read_text())
    said["collect"] |= {
        "sources": [{"kind": "urls", "path": "urls.csv"}],
        "per_class": {"safe": 100, "unsafe": 0},
        "max_bytes": 1_000_000,
    }
    said["collect"]["fetch"] |= {"allow_private": True, "delay_s": 0.0, "pause_s": 0.01, "total_s": 2.0}
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    return path


def write_urls(workspace: Path, urls: list[str]) -> None:
    with (workspace / "urls.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["url", *SAID])
        writer.writeheader()
        writer.writerows({"url": url} | SAID for url in urls)


def test_a_site_with_every_fault(workspace: Path, params: Path) -> None:
    with site() as served:
        served.robots = "User-agent: *\nDisallow: /private/"
        url = {path: served.url(path, "127.0.0.1") for path in [*FAULTS, *GOOD]}
        write_urls(workspace, [*url.values(), "http://[::1", "http://127.0.0.1:1/dead.png"])
        holisafe(workspace, "run", "collect")
        rows = pq.read_table(workspace / "data" / "collect" / "images.parquet").to_pylist()
        failures = pq.read_table(workspace / "data" / "collect" / "failures.parquet").to_pylist()
        reason = {row["source"]: row["reason"] for row in failures}
        assert {path: reason.get(url[path]) for path in FAULTS} == FAULTS
        assert reason["http://[::1"] == "not a URL"
        assert reason["http://127.0.0.1:1/dead.png"] == "cannot connect"
        assert len(failures) == len(FAULTS) + 2
        assert {row["source_uri"]: row["image_id"] for row in rows} == {
            url[path]: sha256_bytes(image(n)) for path, n in GOOD.items()
        }
        assert all(row["retrieved_at"] and row["licence"] == "CC0-1.0" for row in rows)
        asked = Counter(served.asked)
        holisafe(workspace, "run", "collect")
        assert served.asked == asked, "nothing changed, so nothing is fetched"


def test_addresses_of_this_machine_are_refused_unless_allowed(workspace: Path, params: Path) -> None:
    said = yaml.safe_load(params.read_text())
    said["collect"]["fetch"]["allow_private"] = False
    params.write_text(yaml.safe_dump(said, sort_keys=False))
    with site() as served:
        write_urls(
            workspace, [served.url("/picture/1.png", "127.0.0.1"), "http://169.254.169.254/latest/meta-data"]
        )
        holisafe(workspace, "run", "collect")
        failures = pq.read_table(workspace / "data" / "collect" / "failures.parquet").to_pylist()
        assert [row["reason"] for row in failures] == ["address refused"] * 2
        assert not served.asked


def test_certificates_are_checked(workspace: Path, params: Path) -> None:
    known, stranger = trustme.CA(), trustme.CA()
    trusted = workspace / "ca.pem"
    known.cert_pem.write_to_path(trusted)
    contexts = [ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) for _ in range(2)]
    for authority, context in zip((known, stranger), contexts, strict=True):
        authority.issue_cert("localhost").configure_cert(context)
    with site(contexts[0]) as good, site(contexts[1]) as unknown:
        urls = [
            good.url("/picture/1.png", "localhost"),
            good.url("/picture/2.png", "127.0.0.1"),
            unknown.url("/picture/3.png", "localhost"),
        ]
        write_urls(workspace, urls)
        holisafe(workspace, "run", "collect", SSL_CERT_FILE=str(trusted))
    rows = pq.read_table(workspace / "data" / "collect" / "images.parquet").to_pylist()
    failures = pq.read_table(workspace / "data" / "collect" / "failures.parquet").to_pylist()
    assert [row["source_uri"] for row in rows] == urls[:1]
    assert {row["source"]: row["reason"] for row in failures} == dict.fromkeys(
        urls[1:], "certificate refused"
    )
