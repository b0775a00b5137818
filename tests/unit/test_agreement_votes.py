"""What of a file can be used, and what is said of the rest."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.agreement import Votes, read_votes
from pipeline.agreement.problems import LISTED
from pipeline.agreement.scales import Scale
from pipeline.store import write_rows
from schemas.errors import InputError
from schemas.rows import VOTES

HEAD = "item_id,annotator,value"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Votes]:
    def of(text: str | bytes, order: tuple[str, ...] = ()) -> Votes:
        path = tmp_path / "votes.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_votes(path, order)

    return of


def told(votes: Votes) -> list[tuple[int | None, str | None, str]]:
    return [(p.line, p.field, p.problem) for p in votes.problems.listed]


def plain(votes: Votes) -> list[tuple[str, str]]:
    return [(votes.annotators[a], votes.values[v]) for a, v in zip(votes.annotator, votes.value, strict=True)]


def test_a_good_file(read: Callable[..., Votes]) -> None:
    votes = read(f'\ufeff{HEAD}\r\ni1,a,safe\r\n\r\n"i,2",a, unsafe \r\ni1,b,\r\n')
    assert plain(votes) == [("a", "safe"), ("a", "unsafe")]
    assert (votes.rows, votes.missing, votes.groups, votes.scales) == (3, 1, [], [Scale("nominal")])
    assert told(votes) == []


def test_columns_in_any_order_and_others_beside(read: Callable[..., Votes]) -> None:
    votes = read('note,value,annotator,item_id\n"two\nlines",safe,a,i1\nx,safe,b,i1\n,,c,\n')
    assert plain(votes) == [("a", "safe"), ("b", "safe")]
    assert told(votes) == [(5, "item_id", "is empty")]


DIRTY: list[tuple[str, bytes, str, int, str | None, str]] = [
    ("too few fields", b"i1,a", "row", 2, None, "2 fields where the header has 3"),
    ("too many fields", b"i1,a,safe,x", "row", 2, None, "4 fields where the header has 3"),
    ("no item", b",a,safe", "empty", 2, "item_id", "is empty"),
    ("blank annotator", b"i1,  ,safe", "empty", 2, "annotator", "is empty"),
    ("not UTF-8", b"i1,a,s\xe4fe", "encoding", 2, "value", "not UTF-8"),
    ("half a character", b"i1,\xe2\x82,safe", "encoding", 2, "annotator", "not UTF-8"),
    ("NUL", b"i1,a,sa\0fe", "nul", 2, "value", "NUL"),
    ("a closing quote in the middle", b'i1,a,"sa"fe', "row", 2, None, "not a row of CSV"),
    ("a huge field", b"i1,a," + b"x" * 140_000, "row", 2, None, "field larger than field limit"),
    ("an open quote", b'i1,a,"safe', "row", 2, None, "not a row of CSV"),
]


@pytest.mark.parametrize(
    ("row", "kind", "line", "field", "words"), [d[1:] for d in DIRTY], ids=[d[0] for d in DIRTY]
)
def test_a_row_that_cannot_be_used_is_told_and_the_rest_is_read(
    read: Callable[..., Votes], row: bytes, kind: str, line: int, field: str | None, words: str
) -> None:
    votes = read(HEAD.encode() + b"\n" + row + b"\ni2,a,safe\ni2,b,unsafe\n")
    assert plain(votes) == [("a", "safe"), ("b", "unsafe")]
    assert votes.problems.counts == {kind: 1}
    [(at, where, said)] = told(votes)
    assert (at, where) == (line, field)
    assert words in said
    assert votes.rows == 3


def test_an_open_quote_swallows_no_other_row(read: Callable[..., Votes]) -> None:
    good = "".join(f"i{i},{who},safe\n" for i in range(3000) for who in "ab")
    votes = read(f'{HEAD}\ni,a,"safe\n{good}i,b,safe\n')
    assert len(votes.item) == 6001
    assert [p[0] for p in told(votes)] == [2]
    inside = read(f'{HEAD}\ni,"a,safe\nj,a","x\nk,a,safe\n')
    assert plain(inside) == [("a", "safe")]
    assert inside.problems.counts.total() == 2


def test_a_line_break_in_a_name_is_an_open_quote(read: Callable[..., Votes]) -> None:
    broken = read(f'{HEAD},note\n"i\n1",a,safe,x\ni3,a,safe,y\n')
    assert plain(broken) == [("a", "safe")]
    assert told(broken) == [
        (2, "item_id", "holds a line break; is a quote left open?"),
        (3, None, "a quote mark in a row after an open quote"),
    ]


def test_the_same_annotator_twice(read: Callable[..., Votes]) -> None:
    votes = read(f"{HEAD}\ni1,a,safe\ni1,b,\ni1,a,safe\ni1,b,safe\ni1,a,unsafe\n")
    assert plain(votes) == [("a", "safe"), ("b", "safe")]
    assert votes.problems.counts == {"repeated_same": 1, "repeated_other": 1}
    assert told(votes) == [
        (4, "annotator", "'a' has voted on this item before; not counted, the value is the same"),
        (6, "annotator", "'a' has voted on this item before; not counted, the value differs"),
    ]


def test_an_item_is_in_one_group(read: Callable[..., Votes]) -> None:
    votes = read(f"{HEAD},group\ni1,a,safe,x\ni1,b,safe,y\ni2,b,safe,y\ni3,b,safe,\n")
    assert [votes.groups[g] for g in votes.group] == ["x", "y"]
    assert told(votes) == [(3, "group", "its item is in 'x' before"), (5, "group", "is empty")]


def test_scales(read: Callable[..., Votes]) -> None:
    head = f"{HEAD},group,scale\n"
    votes = read(
        f"{head}i1,a,red,x,\ni2,a,1,y,interval\ni3,a,one,y,interval\ni4,a,2,y,nominal\ni5,a,3,y,ratio\n"
        "i6,a,safe,z,ordinal\ni7,a,unsafe,z,ordinal\ni8,a,7,z,ordinal\n"
    )
    assert votes.scales == [
        Scale("nominal"),
        Scale("interval", numbers=True),
        Scale("ordinal", ("safe", "borderline", "unsafe")),
    ]
    assert told(votes) == [
        (4, "value", "'one' is no number, and the scale is interval"),
        (5, "scale", "the scale of its group is interval before"),
        (6, "scale", "'ratio' is none of nominal, ordinal, interval"),
        (9, "value", "'7' is not in the order safe, borderline, unsafe"),
    ]


@pytest.mark.parametrize("number", ["nan", "inf", "-Infinity", "1e999", "1_000", "0x10", "1,5"])
def test_what_is_no_number(read: Callable[..., Votes], number: str) -> None:
    votes = read(f'{HEAD},scale\ni1,a,1.5,interval\ni2,a,"{number}",interval\ni3,a,2,interval\n')
    assert told(votes) == [(3, "value", f"{number!r} is no number, and the scale is interval")]


def test_a_text_for_a_value_is_not_told_in_full(read: Callable[..., Votes]) -> None:
    votes = read(f"{HEAD},scale\ni1,a,1,ordinal\ni1,b,2,ordinal\ni1,c,{'word ' * 20_000},ordinal\n")
    [(line, field, said)] = told(votes)
    assert (line, field, len(said) < 150) == (4, "value", True)
    assert said.startswith("'word word ")


def test_orders_of_an_ordinal_scale(read: Callable[..., Votes]) -> None:
    def scale(values: str, order: tuple[str, ...] = ()) -> Scale:
        rows = "".join(f"i{i},a,{value},ordinal\n" for i, value in enumerate(values.split()))
        return read(f"{HEAD},scale\n{rows}", order).scales[0]

    assert scale("1 10 2") == Scale("ordinal", numbers=True)
    assert scale("low high mid", ("low", "mid", "high")) == Scale("ordinal", ("low", "mid", "high"))
    assert not scale("low high mid").ordered
    assert scale("1 2 3", ("3", "2", "1")) == Scale("ordinal", ("3", "2", "1"))
    assert scale("safe unsafe", ("low", "high")).order == ("safe", "borderline", "unsafe")


def test_an_order_that_is_not_used_is_told(read: Callable[..., Votes]) -> None:
    votes = read(f"{HEAD}\ni1,a,low\n", ("low", "high"))
    assert told(votes) == [
        (None, "scale", "--order is not used: no group has scale ordinal and these values")
    ]


def test_at_most_a_hundred_problems_are_listed_and_all_are_counted(read: Callable[..., Votes]) -> None:
    rows = "".join(f"i{i},a\n,a,safe\ni,a,safe\n" for i in range(300))
    votes = read(f"{HEAD}\n{rows}")
    assert votes.problems.counts == {"row": 300, "empty": 300, "repeated_same": 299}
    listed = votes.problems.listed
    assert len(listed) == LISTED
    assert [p.line for p in listed[:4]] == [2, 3, 5, 6]


def test_families_are_of_the_vote_and_may_be_missing(read: Callable[..., Votes]) -> None:
    votes = read(f"{HEAD},family\ni1,a,safe,qwen\ni1,b,safe,\ni1,c,safe,qwen\n")
    assert votes.has_families
    assert [votes.families[f] for f in votes.family] == ["qwen", "b", "qwen"]


HOPELESS = [
    ("empty", b"", "no column item_id, annotator, value"),
    ("only a header", HEAD.encode() + b"\n", "no vote in it can be used: 0 rows"),
    ("other columns", b"id,who,what\n1,a,b\n", "the header is 'id,who,what'"),
    ("semicolons", b"item_id;annotator;value\n1;a;b\n", "separated by commas"),
    ("UTF-16", "item_id,annotator,value\n1,a,b\n".encode("utf-16"), "in UTF-8"),
    ("a column twice", b"item_id,annotator,value,value\n1,a,b,c\n", "the column value stands there twice"),
    ("only missing votes", b"item_id,annotator,value\n1,a,\n", "1 rows, 1 without a vote"),
    (
        "only bad rows",
        b"item_id,annotator,value\n1,a\n,a,b\n",
        "line 2: row: 2 fields where the header has 3",
    ),
    ("noise", bytes(range(128, 256)) * 50, "no column item_id"),
    ("an open quote in the header", b'"item_id,annotator,value\n1,a,b\n', "not a CSV file"),
    ("half a Parquet file", b"PAR1" + bytes(40), "Parquet"),
]


@pytest.mark.parametrize(("data", "words"), [h[1:] for h in HOPELESS], ids=[h[0] for h in HOPELESS])
def test_a_file_of_which_nothing_can_be_computed(
    read: Callable[..., Votes], tmp_path: Path, data: bytes, words: str
) -> None:
    with pytest.raises(InputError) as error:
        read(data)
    assert words in str(error.value)
    assert str(tmp_path / "votes.csv") in str(error.value)


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_votes(path)


def row(item: str, question: str, annotator: str, value: str | None, **more: Any) -> dict[str, Any]:
    return {
        "item_id": item,
        "question": question,
        "annotator": annotator,
        "family": "qwen",
        "status": "ok" if value else "unscorable",
        "value": value,
        "score": 0.5 if value else None,
        "note": "",
        "call_key": "",
    } | more


def test_our_own_votes_table(tmp_path: Path) -> None:
    path = tmp_path / "votes.parquet"
    rows = [
        row("1", "image_safe", "a", "safe"),
        row("1", "image_class", "a", "race"),
        row("1", "image_safe", "b", None),
        row("1", "image_safe", "c", "unsafe", family="people:c"),
        row("1", "image_safe", "a", "unsafe"),
        row("2", "image_safe", "a", "safe", status="error"),
    ]
    write_rows(path, VOTES, rows)
    votes = read_votes(path)
    assert votes.groups == ["image_safe", "image_class"]
    assert [(votes.groups[g], votes.values[v]) for g, v in zip(votes.group, votes.value, strict=True)] == [
        ("image_safe", "safe"),
        ("image_class", "race"),
        ("image_safe", "unsafe"),
    ]
    assert (votes.rows, votes.missing) == (6, 2)
    assert told(votes) == [
        (5, "annotator", "'a' has voted on this item before; not counted, the value differs")
    ]


def test_the_same_table_as_csv_says_the_same(tmp_path: Path) -> None:
    rows = [row(str(i), "q", a, v) for i in range(3) for a, v in (("a", "safe"), ("b", None))]
    write_rows(tmp_path / "votes.parquet", VOTES, rows)
    with (tmp_path / "votes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    one, other = (read_votes(tmp_path / name) for name in ("votes.parquet", "votes.csv"))
    assert plain(one) == plain(other)
    assert (one.groups, one.missing, told(one)) == (other.groups, other.missing, told(other))


def test_parquet_with_numbers_and_without_a_column(tmp_path: Path) -> None:
    path = tmp_path / "votes.parquet"
    pq.write_table(pa.table({"item_id": [1, 2], "annotator": ["a", "a"], "value": [1.5, None]}), path)
    votes = read_votes(path)
    assert (plain(votes), votes.missing) == ([("a", "1.5")], 1)
    pq.write_table(pa.table({"item_id": [1], "value": ["x"]}), path)
    with pytest.raises(InputError, match="no column annotator"):
        read_votes(path)
    pq.write_table(pa.table({"item_id": [1], "annotator": ["a"], "value": [["x"]]}), path)
    with pytest.raises(InputError, match="not a table of votes"):
        read_votes(path)
