"""A dataset of the Hub is audited: by name and revision, from a server that speaks the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.conftest import holisafe
from tests.images import encoded, picture
from tests.serving import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROW = {
    "id": 1,
    "image": "a/b/one.png",
    "query": "What is this?",
    "type": "SSS",
    "category": "a",
    "subcategory": "b",
    "image_safe": True,
    "image_safety_label": 0,
}
FILES = {
    "holisafe_bench.json": json.dumps([ROW]).encode(),
    "images/a/b/one.png": encoded(picture(40, 40, seed=1), "PNG"),
    "weights.bin": b"nobody asks for this",
}


@contextmanager
def hub(asked: list[str]) -> Iterator[str]:
    """Serve one dataset, `somebody/pairs`, with one commit; gives the address."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            file = path.partition(f"/datasets/somebody/pairs/resolve/{COMMIT}/")[2]
            if path.startswith("/api/datasets/somebody/pairs/revision/"):
                siblings = [{"rfilename": name} for name in FILES]
                told = {"id": "somebody/pairs", "sha": COMMIT, "private": False, "siblings": siblings}
                self.give(json.dumps(told).encode(), "application/json")
            elif path == f"/api/datasets/somebody/pairs/tree/{COMMIT}":
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(body),
                        "oid": hashlib.sha256(body).hexdigest()[:40],
                    }
                    for name, body in FILES.items()
                ]
                self.give(json.dumps(tree).encode(), "application/json")
            elif file in FILES:
                self.give(FILES[file], "application/octet-stream")
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def give(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Hub) as address:
        yield address


@pytest.mark.parametrize("revision", ["", "@v1.0"])
def test_only_what_is_read_is_fetched(tmp_path: Path, revision: str) -> None:
    asked: list[str] = []
    with hub(asked) as address:
        place = f"hub:somebody/pairs{revision}"
        holisafe(
            tmp_path, "audit", place, "--out", "out", HF_ENDPOINT=address, HF_HUB_OFFLINE="0",
            HF_HOME=str(tmp_path / "home"),
        )  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["place"], metrics["rows"], metrics["images"]) == (place, 1, 1)
    assert metrics["problems"]["n"] == 0, "its image was there and could be decoded"
    assert any(path.startswith(f"/api/datasets/somebody/pairs/revision/{revision[1:]}") for path in asked)
    assert not any("weights.bin" in path for path in asked)


def test_a_name_that_is_not_there_is_said(tmp_path: Path) -> None:
    with hub([]) as address:
        done = holisafe(
            tmp_path, "audit", "hub:somebody/else", "--out", "out", check=False, HF_ENDPOINT=address,
            HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path / "home"),
        )  # fmt: skip
    assert done.returncode == 2
    assert "hub:somebody/else: cannot be fetched" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_offline_nothing_is_asked(tmp_path: Path) -> None:
    asked: list[str] = []
    with hub(asked) as address:
        done = holisafe(
            tmp_path, "audit", "hub:somebody/pairs", "--out", "out", check=False, HF_ENDPOINT=address,
            HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"),
        )  # fmt: skip
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE" in done.stderr
    assert asked == []
