"""The helper that follows tutorials: what it reads in a page, what it holds to be the same, what it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.tutorials import FILES, OUTPUT, SHELL, Block, blocks, differs, follow

PAGE = """# A page

```bash
echo one
```

Text with ``code`` in it.

- A list:

    ```yaml title="a.yaml"
    a:
      b: 1
    ```

```output
one
```
"""

TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.md"))


def test_blocks_are_read_in_order_with_their_titles() -> None:
    assert blocks(PAGE) == [
        Block("bash", "", "echo one\n", 3),
        Block("yaml", "a.yaml", "a:\n  b: 1\n", 11),
        Block("output", "", "one\n", 16),
    ]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```\nx\n```\n", "line 1: a fence needs a language"),
        ("a\n```bash linenums=1\n```\n", "line 2: a fence needs a language"),
        ("```bash\necho\n", "line 1: nothing closes"),
    ],
)
def test_a_page_that_cannot_be_read_is_told_with_the_line(page: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocks(page)


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("a\nb\n", "a  \nb\n\n"),
        ("a … c\n", "a b c\n"),
        ("…\nlast\n", "first\nsecond\nlast\n"),
        ("first\n…\n", "first\n"),
        ("a\n…\nz …\n", "a\nb\nz 26\n"),
        ("(1) [x]\n", "(1) [x]\n"),
    ],
)
def test_output_is_as_shown(shown: str, real: str) -> None:
    assert not differs(shown, real)


@pytest.mark.parametrize(
    ("shown", "real"),
    [("a\n", "b\n"), ("a\n", "a\nb\n"), ("a … c\n", "a b d\n"), ("a.c\n", "abc\n"), ("a\n…\nz\n", "a\nb\n")],
)
def test_output_is_not_as_shown(shown: str, real: str) -> None:
    told = differs(shown, real)
    assert shown in told
    assert real in told


def test_a_reader_keeps_the_folder_writes_files_and_has_two_terminals(tmp_path: Path) -> None:
    page = blocks(
        "```bash\nmkdir there\ncd there\n```\n"
        '```yaml title="a.yaml"\na: $HOME\n```\n'
        "```bash\ncat a.yaml\n```\n```output\na: $HOME\n```\n"
        "```python\nprint(open('a.yaml').read(), end='')\n```\n```output\na: …\n```\n"
        '```bash title="second terminal"\ncd there; echo ready; sleep 60\n```\n```output\nready\n```\n'
        "```bash\necho $WORD; cat\n```\n```output\nhello\n```\n"
    )
    told: list[str] = []
    follow(page, tmp_path, {"WORD": "hello"}, told.append, seconds=30)
    assert told == ["ready\n"]
    assert [p.name for p in tmp_path.rglob("*")] == ["there", "a.yaml"]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```bash\nfalse\necho on\n```\n", "it ended"),
        ("```bash\necho why >&2; exit 3\n```\n", "why"),
        ("```bash\nsleep 60\n```\n", "more than 2 s"),
        ("```bash\necho one\n```\n```output\ntwo\n```\n", "line 1"),
        ("```yaml\na: 1\n```\n", "line 1: a file needs its name"),
        ("```toml\na = 1\n```\n", "nobody knows how to run 'toml'"),
        ('```bash title="second terminal"\nsleep 60\n```\n', "has to be shown"),
        ('```bash title="second terminal"\necho no\n```\n```output\nyes\n```\n', "no"),
    ],
)
def test_what_goes_wrong_is_told(tmp_path: Path, page: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        follow(blocks(page), tmp_path, {}, seconds=2)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_has_only_blocks_that_are_run_or_shown(path: Path) -> None:
    found = blocks(path.read_text())
    assert {block.language for block in found} <= SHELL | FILES | {"python", OUTPUT}
    assert all(block.title for block in found if block.language in FILES)
