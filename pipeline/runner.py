"""Runs a stage if something it depends on has changed.

The decision hangs on the stage key alone: a fingerprint of what goes in. Left out of it, and why:

| left out | why |
|---|---|
| paths, times, host, process ids | the same inputs are the same inputs anywhere |
| code | `Stage.version` says when it gives other results; a comment edited is not a new result |
| the call cache | it holds answers to requests, and the requests follow from the inputs |
| the split ledger | it only grows, and keeps what is decided already |
| unused params | a stage names what it uses |
| the encoder's batch, threads and paths | its files' hashes are in the key; an image alone gives the same |
| an endpoint's URL, key, limits and prices | the same model answers, wherever it is and whatever it costs |
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.encoders import encoder_identity
from pipeline.models import model_sha256
from pipeline.stages import STAGES, Stage
from pipeline.store import canonical_json, replace_directory, sha256_file, sha256_text, write_json
from pipeline.workspace import Progress, Workspace
from schemas.errors import InputError
from schemas.params import HARM_PROMPT, VOTED, source_paths

__all__ = [
    "WorkspaceBusyError",
    "fresh_stages",
    "has_run",
    "is_fresh",
    "last_output",
    "last_seconds",
    "locked",
    "only_inputs_changed",
    "run_stage",
    "stage_files",
    "stage_key",
    "what_changed",
]

SCHEME = 1
PACKAGE = Path(__file__).parent


class WorkspaceBusyError(InputError):
    """Another build works in this workspace."""


@contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace for one build.

    Raises:
        WorkspaceBusyError: when another process holds it.
    """
    workspace.state.mkdir(parents=True, exist_ok=True)
    with (workspace.state / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise WorkspaceBusyError(
                f"{workspace.root}: another build (process {file.read().strip() or 'unknown'}) works here; "
                "wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def stage_key(workspace: Workspace, stage: Stage) -> str | None:
    """The fingerprint of everything that `stage` depends on; None while an input has not been made."""
    parts = _key_parts(workspace, stage)
    return None if parts is None else sha256_text(canonical_json(parts))


def _key_parts(workspace: Workspace, stage: Stage) -> dict[str, Any] | None:
    inputs = {}
    for name in stage.inputs:
        record = _record(workspace, name)
        if record is None:
            return None
        inputs[name] = {path: out["sha256"] for path, out in sorted(record["outs"].items())}
    params = workspace.params.model_dump(mode="json")
    asked = stage.encodes(workspace.params)
    params["encoder"] = encoder_identity(workspace.params.encoder, workspace.root) if asked else None
    files = stage_files(workspace, stage)
    return {
        "scheme": SCHEME,
        "stage": stage.name,
        "version": stage.version,
        "inputs": inputs,
        "params": {path: _at(params, path) for path in stage.params},
        "files": {name: _hashed(path) for name, path in files.items()},
        "voters": {q: _identities(workspace, q) for q in stage.questions},
        "models": {name: model_sha256(name) for name in stage.weights(workspace.params)},
        "heads": {name: sha256_file(PACKAGE / name) for name in stage.heads},
    }


def what_changed(workspace: Workspace, stage: Stage, fresh: Collection[str]) -> list[str]:
    """Why a stage will run: what it depends on that is not as it was when it ran last.

    Args:
        workspace: the workspace.
        stage: the stage.
        fresh: what `fresh_stages` gives.

    Returns:
        Names of params, files, inputs and so on; empty when it is up to date.
    """
    record = _record(workspace, stage.name)
    if record is None:
        return ["it has not run"]
    stale = [name for name in stage.inputs if name not in fresh]
    now = _key_parts(workspace, stage)
    before = record.get("parts")
    if now is None or stale:
        return [f"what comes before: {', '.join(stale)}", *_differences(before, now)]
    if sha256_text(canonical_json(now)) != record["key"]:
        return _differences(before, now) or ["what it was made from is not known"]
    return [] if is_fresh(workspace, stage) else ["its tables are gone, or not as it left them"]


def _differences(before: dict[str, Any] | None, now: dict[str, Any] | None) -> list[str]:
    """What differs in two keys, in words."""
    if before is None or now is None:
        return []
    found = []
    if before["version"] != now["version"]:
        found.append("the code")
    for part in ("params", "files", "voters", "models", "heads"):
        names = sorted(before[part].keys() | now[part].keys())
        found += [f"{part}: {name}" for name in names if before[part].get(name) != now[part].get(name)]
    return found


def stage_files(workspace: Workspace, stage: Stage) -> dict[str, Path]:
    """The files outside `data/` stages that `stage` depends on, by their path below the workspace."""
    params = workspace.params
    names = {
        "{taxonomy}": [params.taxonomy],
        "{sources}": [p for source in params.collect.sources for p in source_paths(workspace.root, source)],
        "{block_lists}": [listed.path for listed in params.collect.block_lists],
        **{f"{{{question}}}": [params.annotation_prompt(question)] for question in VOTED},
        "{safety_head}": [params.annotators.safety_head] if params.annotators.safety_head else [],
        "{harm}": [params.prompts / HARM_PROMPT] if params.annotators.harm else [],
        "{checkpoints}": [
            Path(maker.model)
            for maker in params.generate.pictures
            if maker.kind == "diffusion" and (workspace.root / maker.model).is_dir()
        ],
    }
    found: dict[str, Path] = {}
    for entry in stage.files:
        for part in names.get(entry, [Path(entry.replace("{prompts}", str(params.prompts)))]):
            path = workspace.root / part
            inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            found |= {
                str(part / p.relative_to(path)) if p != path else str(part): p for p in inside if p.is_file()
            }
    return found


def _hashed(path: Path) -> str:
    stat = path.stat()
    return _hashed_once(path, stat.st_size, stat.st_mtime_ns)


@cache
def _hashed_once(path: Path, _size: int, _mtime_ns: int) -> str:
    """The hash of a file as it is now; gigabytes are read once, however often keys are made."""
    return sha256_file(path)


def _identities(workspace: Workspace, question: str) -> dict[str, Any]:
    """What decides the answers of the endpoints that vote on a question, by their names."""
    found: dict[str, Any] = {}
    for name, said in workspace.params.voters(question).items():
        found[name] = said.identity()
        if said.kind == "scripted":
            found[name]["sha256"] = sha256_file(workspace.root / said.script)
    return found


def is_fresh(workspace: Workspace, stage: Stage) -> bool:
    """Whether the stage's outputs are there, unchanged, and made from what is there now."""
    record = _record(workspace, stage.name)
    if record is None or record["key"] != stage_key(workspace, stage):
        return False
    folder = workspace.stage_dir(stage.name)
    return all(_unchanged(folder / path, out) for path, out in record["outs"].items())


def last_output(workspace: Workspace, name: str) -> dict[str, str]:
    """The files that a stage left when it ran last and that nobody has changed since: SHA-256 by path."""
    record = _record(workspace, name) or {"outs": {}}
    folder = workspace.stage_dir(name)
    return {path: out["sha256"] for path, out in record["outs"].items() if _unchanged(folder / path, out)}


def last_seconds(workspace: Workspace, name: str) -> float | None:
    """How long a stage took when it ran last; None where it has not."""
    record = _record(workspace, name)
    return None if record is None else float(record["seconds"])


def only_inputs_changed(workspace: Workspace, name: str) -> bool:
    """Whether a stage has run, and everything that its key holds but its inputs is as it was then."""
    before = (_record(workspace, name) or {}).get("parts")
    now = _key_parts(workspace, replace(STAGES[name], inputs=()))
    return before is not None and _differences(before, now) == []


def has_run(workspace: Workspace, stage: Stage) -> bool:
    """Whether there are all tables of the stage, as its code writes them now, up to date or not."""
    record = _record(workspace, stage.name)
    if record is None or record.get("parts", {}).get("version") != stage.version:
        return False
    return all((workspace.stage_dir(stage.name) / path).exists() for path in record["outs"])


def fresh_stages(workspace: Workspace) -> frozenset[str]:
    """The stages that a build would leave as they are: they are fresh, and all that comes before them is."""
    fresh: set[str] = set()
    for stage in STAGES.values():
        if fresh.issuperset(stage.inputs) and is_fresh(workspace, stage):
            fresh.add(stage.name)
    return frozenset(fresh)


def run_stage(workspace: Workspace, name: str, progress: Progress) -> bool:
    """Run one stage if it is not fresh; the caller holds the workspace.

    The stage works in a folder of its own, which takes the place of the old outputs when it is done, so
    a crash at any point leaves either the old outputs or none.

    Returns:
        Whether it ran.

    Raises:
        InputError: when the stage is unknown or an input stage has not been run.
    """
    if name not in STAGES:
        raise InputError(f"no stage {name!r}; there are: {', '.join(STAGES)}")
    stage = STAGES[name]
    for needed in stage.inputs:
        if _record(workspace, needed) is None or not workspace.stage_dir(needed).exists():
            raise InputError(
                f"{name} needs {needed}, which has not been run; run `holisafe run {needed}` first"
            )
    if is_fresh(workspace, stage):
        return False
    parts = _key_parts(workspace, stage)
    out = workspace.state / "partial" / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started = time.monotonic()
    stage.run(workspace, out, progress)
    seconds = time.monotonic() - started
    _give_back_memory()
    _record_path(workspace, name).unlink(missing_ok=True)
    target = workspace.stage_dir(name)
    replace_directory(out, target)
    outs = {str(p.relative_to(target)): _stamp(p) for p in sorted(target.rglob("*")) if p.is_file()}
    record = {
        "key": sha256_text(canonical_json(parts)),
        "seconds": round(seconds, 1),
        "outs": outs,
        "parts": {part: value for part, value in (parts or {}).items() if part != "inputs"},
    }
    write_json(_record_path(workspace, name), record)
    return True


def _give_back_memory() -> None:
    """What a stage has freed goes back to the system; else the next one's peak comes on top of it."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other libraries do it by themselves
    if trim is not None:
        trim(0)


def _record_path(workspace: Workspace, name: str) -> Path:
    return workspace.state / "stages" / f"{name}.json"


def _record(workspace: Workspace, name: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(_record_path(workspace, name).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return record


def _stamp(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"sha256": sha256_file(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _unchanged(path: Path, out: dict[str, Any]) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    if stat.st_size != out["size"]:
        return False
    return bool(stat.st_mtime_ns == out["mtime_ns"]) or sha256_file(path) == out["sha256"]


def _at(params: dict[str, Any], path: str) -> Any:
    value: Any = params
    for part in path.split("."):
        value = value[part]
    return value
