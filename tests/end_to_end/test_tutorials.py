"""The tutorials, followed as they stand: the first makes a folder, and the others go on in it."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.conftest import HOLISAFE, REPOSITORY
from tests.review import Browser
from tests.tutorials import blocks, follow

pytestmark = [pytest.mark.build, pytest.mark.timeout(5400)]

PORT = 8765
"""Of the scripted endpoint, as profiles/rehearsal.yaml names it."""


def do(name: str, folder: Path) -> None:
    """Follow one tutorial."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", PORT))
        except OSError as error:
            raise AssertionError(f"port {PORT} is taken: something else serves there, end it") from error
    path = REPOSITORY / "docs" / "tutorials" / f"{name}.md"
    environment = {
        "PATH": f"{Path(HOLISAFE).parent}:{os.environ['PATH']}",  # `holisafe` is what a reader types
        "COLUMNS": "80",  # as wide as the pages show tables
        # Where other tests run beside us:
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
        "PREFECT_API_REQUEST_TIMEOUT": "600",
    }
    follow(blocks(path.read_text()), folder, environment, review)


def review(printed: str) -> None:
    """Where a page is served, judge three rows, as the reader does in a browser."""
    if found := re.search(r"http://127\.0\.0\.1:\d+/\S*\?\S+", printed):
        mine = Browser(found[0], "me")
        for _ in range(3):
            mine.judge(mine.queue())


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorials")
    do("regenerate", folder)
    return folder


def test_a_dataset_is_built_from_nothing(regenerated: Path) -> None:
    assert (regenerated / "my-dataset/data/audit/index.html").is_file()


@pytest.mark.parametrize("name", ["extend", "audit"])
def test_the_others_go_on_from_there(regenerated: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(regenerated, tmp_path / "copy")
    do(name, tmp_path / "copy")
