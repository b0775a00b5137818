"""Whatever people hand in is read, or an `InputError` says what is wrong: no crash, no hang, no other file.

Files that are right are damaged at random: a value of their structure is replaced, left out or doubled, or
bytes are changed, left out, put in. HOLISAFE_FUZZ=N asks for N examples of each instead of a few.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.agreement.votes import read_votes
from pipeline.anyset import Problems, open_anyset
from pipeline.bench.predictions import read_predictions
from pipeline.collect import run as collect
from pipeline.curate.looks import look
from pipeline.curate.normalise import RejectedImageError, normalise, opened
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from schemas.params import Curate, load_params
from schemas.queries import load_scenes
from schemas.taxonomy import load_taxonomy
from tests.conftest import REPOSITORY, make_workspace
from tests.images import picture

fuzzed = settings(
    max_examples=int(os.environ.get("HOLISAFE_FUZZ", "60")),
    deadline=5000,  # of one example: what takes longer hangs
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ODD = [
    "",
    " ",
    "null",
    "../../outside",
    "/outside",
    "a\x00b",
    "\ud800",
    "é" * 300,
    "1e999",
    "-1",
    "{thing",
    "%s",
]
texts = st.sampled_from(ODD) | st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a tree of mappings and lists, but for the tree itself."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def damaged(draw: Any, tree: Any) -> Any:
    """A tree of which up to three values were replaced, left out, doubled, or given another name."""
    found = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        there = list(places(found))
        if not there:
            break
        *way, last = draw(st.sampled_from(there))
        inner = functools.reduce(lambda part, key: part[key], way, found)
        what = draw(st.sampled_from(["replace", "leave out", "double", "rename"]))
        if what == "replace" or (what == "double" and isinstance(inner, dict)):
            inner[last] = draw(values)
        elif what == "double":
            inner.insert(last, copy.deepcopy(inner[last]))
        elif what == "rename" and isinstance(inner, dict):
            inner[draw(texts)] = inner.pop(last)
        else:
            del inner[last]
    return found


@st.composite
def broken(draw: Any, data: bytes) -> bytes:
    """Bytes of which some were changed, left out or put in."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        what = draw(st.sampled_from(["change", "cut", "leave out", "put in"]))
        if what == "cut":
            del found[at:]
        elif what == "leave out":
            del found[at : at + draw(st.integers(1, 40))]
        elif what == "put in":
            found[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif at < len(found):
            found[at] = draw(st.integers(0, 255))
    return bytes(found)


@contextmanager
def in_a_folder() -> Iterator[Path]:
    """A folder inside a folder, which is to hold nothing else in the end."""
    with tempfile.TemporaryDirectory() as around:
        inside = Path(around) / "workspace"
        inside.mkdir()
        yield inside
        assert [path.name for path in Path(around).iterdir()] == ["workspace"]


def read_or_refused(read: Callable[[], object]) -> None:
    """Read something; an `InputError` has to say something."""
    said = "something"
    try:
        read()
    except InputError as error:
        said = str(error)
    assert said.strip()


def written(path: Path, tree: Any) -> Path:
    """The tree as YAML; surrogates, which YAML cannot hold, as question marks."""
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    path.write_bytes(text.encode("utf-8", "replace"))
    return path


@functools.cache
def tree_of(name: str) -> Any:
    return yaml.safe_load((REPOSITORY / name).read_text())


def small_taxonomy() -> Any:
    """The taxonomy's head and one category."""
    tree = copy.deepcopy(tree_of("schemas/taxonomy.yaml"))
    first = next(iter(tree["categories"]))
    tree["categories"] = {first: tree["categories"][first]}
    return tree


@fuzzed
@given(st.data())
def test_a_taxonomy(data: Any) -> None:
    with in_a_folder() as folder:
        path = written(folder / "taxonomy.yaml", data.draw(damaged(small_taxonomy())))
        read_or_refused(lambda: load_taxonomy(path))


@fuzzed
@given(st.data())
def test_the_bytes_of_a_taxonomy(data: Any) -> None:
    with in_a_folder() as folder:
        path = folder / "taxonomy.yaml"
        path.write_bytes(data.draw(broken(yaml.safe_dump(small_taxonomy(), sort_keys=False).encode())))
        read_or_refused(lambda: load_taxonomy(path))


@fuzzed
@given(st.sampled_from(["params.yaml", "profiles/holisafe.yaml", "profiles/rehearsal.yaml"]), st.data())
def test_params(name: str, data: Any) -> None:
    with in_a_folder() as folder:
        written(folder / "params.yaml", data.draw(damaged(tree_of(name))))
        read_or_refused(lambda: load_params(folder))


@fuzzed
@given(st.data())
def test_query_scenes(data: Any) -> None:
    taxonomy = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")
    with in_a_folder() as folder:
        written(folder / "hate.yaml", data.draw(damaged(tree_of("prompts/queries/hate.yaml"))))
        read_or_refused(lambda: load_scenes(folder, taxonomy))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with some pictures and the list that tells of them."""
    return make_workspace(tmp_path_factory.mktemp("around") / "workspace", ["medical_advice"])


@fuzzed
@given(st.data())
def test_a_list_of_images(space: Path, data: Any) -> None:
    listed = space / "data" / "seed" / "metadata.jsonl"
    whole = listed.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    try:
        if data.draw(st.booleans()):
            changed = [data.draw(damaged(row)) for row in rows[:2]] + rows[2:]
            listed.write_text("\n".join(json.dumps(row) for row in changed) + "\n")
        else:
            listed.write_bytes(data.draw(broken(whole)))
        with in_a_folder() as out:
            collect(Workspace(space), out, Silent())
            assert {path.name for path in out.iterdir()} == {"images.parquet", "failures.parquet"}
    finally:
        listed.write_bytes(whole)
    assert [path.name for path in space.parent.iterdir()] == ["workspace"]


ROW = {
    "id": 7, "image": "hate/gender/1.png", "query": "What is on the sign?", "type": "SSS", "category": "hate",
    "subcategory": "gender", "image_safe": True, "image_safety_label": 0,
}  # fmt: skip
ANSWERED = [ROW | {"id": n, "prediction": f"A cat, {n} times."} for n in range(4)]


@fuzzed
@given(st.data())
def test_predictions(data: Any) -> None:
    with in_a_folder() as folder:
        path = folder / "predictions.json"
        if data.draw(st.booleans()):
            path.write_text(json.dumps(data.draw(damaged(ANSWERED))))
        else:
            path.write_bytes(data.draw(broken(json.dumps(ANSWERED, indent=1).encode())))
        read_or_refused(lambda: list(read_predictions(path, None, Problems())))


@fuzzed
@given(st.data())
def test_a_dataset(data: Any) -> None:
    with in_a_folder() as folder:
        path = folder / "holisafe_bench.json"
        if data.draw(st.booleans()):
            path.write_text(json.dumps(data.draw(damaged(ANSWERED))))
        else:
            path.write_bytes(data.draw(broken(json.dumps(ANSWERED).encode())))

        def read() -> None:
            found = open_anyset(str(folder))
            for key, held in found.pictures.read(sorted(set(found.rows["image"]))):
                assert held is None, f"{key} lies outside of the dataset"

        read_or_refused(read)


VOTES = b"item_id,question,annotator,family,value,score\n" + b"".join(
    b"%d,image_safe,%s,%s,%s,0.%d\n" % (item, name, name[:1], (b"safe", b"unsafe")[item % 2], item)
    for item in range(6)
    for name in (b"anna", b"bert")
)


@fuzzed
@given(broken(VOTES), st.sampled_from([".csv", ".parquet"]))
def test_votes(found: bytes, suffix: str) -> None:
    with in_a_folder() as folder:
        path = folder / f"votes{suffix}"
        path.write_bytes(found)
        read_or_refused(lambda: read_votes(path))


@functools.cache
def image_bytes(form: str) -> bytes:
    buffer = io.BytesIO()
    picture(48, 40, 3).save(buffer, form)
    return buffer.getvalue()


@fuzzed
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_an_image(form: str, data: Any) -> None:
    found = data.draw(broken(image_bytes(form)))
    limits = Curate.model_validate(tree_of("params.yaml")["curate"])
    reason = "none"
    try:
        made = normalise(found, limits)
        assert Image.open(io.BytesIO(made.data)).format == "JPEG"
        with opened(found, limits.max_pixels) as image:
            look(image)
    except RejectedImageError as error:
        reason = error.reason
    assert reason
