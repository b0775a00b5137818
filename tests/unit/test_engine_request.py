"""The call key: what changes it, and what must not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from pipeline.engine import Request
from pipeline.engine.request import render_schema
from pipeline.store import canonical_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
PARAMS = st.dictionaries(TEXT.map("p_".__add__), JSON, max_size=5)


def request(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "backend_id": "openai",
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "params": {"temperature": 0},
    }
    return Request(**{**fields, **changes})


def turned(value: Any) -> Any:
    """The same value with every dict in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(PARAMS)
def test_the_order_of_dicts_does_not_matter(params: dict[str, Any]) -> None:
    assert request(params=params).key == request(params=turned(params)).key
    turned_messages = [{"content": "hello", "role": "user"}]
    assert request(messages=turned_messages).key == request(messages=tuple(request().messages)).key


@given(PARAMS, PARAMS)
def test_different_params_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = canonical_json(one) == canonical_json(other)
    assert (request(params=one).key == request(params=other).key) is same


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_have_one_spelling(number: int) -> None:
    assert request(params={"n_x": number}).key == request(params={"n_x": float(number)}).key


@given(TEXT, TEXT)
def test_texts_do_not_run_into_each_other(one: str, other: str) -> None:
    a = request(messages=[{"role": "user", "content": one}, {"role": "user", "content": other}])
    b = request(messages=[{"role": "user", "content": one + other}, {"role": "user", "content": ""}])
    assert (a.key == b.key) is (other == "")


@pytest.mark.parametrize(
    "change",
    [
        {"backend_id": "sha256:00"},
        {"model": "other"},
        {"messages": [{"role": "user", "content": "hello "}]},
        {"messages": [{"role": "system", "content": "hello"}]},
        {"params": {"temperature": 0.1}},
        {"params": {"temperature": False}},
        {"params": {}},
        {"sample": 1},
    ],
    ids=str,
)
def test_everything_that_is_sent_is_in_the_key(change: dict[str, Any]) -> None:
    assert request(**change).key != request().key


def test_the_key_is_frozen() -> None:
    # A changed key loses every paid answer: raise SCHEME and say so in the changelog if you mean it.
    assert request().key == "a8ae744000155ad9bd30e9d93168366460b3008a0922d546db474ff9d9f7fcc5"


class Verdict(BaseModel):
    """One docstring."""

    model_config = ConfigDict(extra="forbid")
    title: str = Field(description="kept: the model reads it")
    unsafe: bool


def test_what_is_for_programmers_is_not_in_the_schema() -> None:
    first = Verdict

    class Renamed(BaseModel):
        """Another docstring."""

        model_config = ConfigDict(extra="forbid")
        title: str = Field(description="kept: the model reads it")
        unsafe: bool

    assert render_schema(first) == render_schema(Renamed)
    assert request(schema=first).key == request(schema=Renamed).key
    assert '"title": {"description": "kept: the model reads it"' in render_schema(first)


def test_the_order_of_a_schema_s_fields_matters() -> None:
    class Reordered(BaseModel):
        model_config = ConfigDict(extra="forbid")
        unsafe: bool
        title: str = Field(description="kept: the model reads it")

    assert request(schema=Verdict).key != request(schema=Reordered).key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend_id": "http://localhost:1/v1"}, "never a URL"),
        ({"messages": []}, "there are none"),
        ({"params": {"stream": True}}, "set by the engine"),
        ({"params": {"temperature": float("nan")}}, "no canonical spelling"),
        ({"params": {"x": object()}}, "no canonical spelling"),
        ({"params": {"x": {1: 2}}}, "keys are text"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "Unicode"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "by sha256"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "sha256": "x"}]}]}, "needs the sha256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_requests_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(**change)


def test_what_is_sent_is_what_was_keyed() -> None:
    params: dict[str, Any] = {"temperature": 0, "extra_body": {"cache_prompt": True}}
    made = request(params=params, schema=Verdict)
    params["temperature"] = 1
    body = made.body()
    assert body["temperature"] == 0
    assert body["cache_prompt"] is True
    assert body["response_format"]["json_schema"]["strict"] is True
    assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["title", "unsafe"]
