"""Tutorials as a reader follows them: the blocks of a page, two terminals, and what they print."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "Terminal", "blocks", "differs", "follow"]

SECOND = "second terminal"
"""The title of a block that runs in another terminal, and goes on while the reader does."""

SHELL = frozenset({"bash"})
FILES = frozenset({"yaml", "csv"})
OUTPUT = "output"
ANY = "…"
"""Stands in shown output for what may be otherwise; alone on a line for any lines."""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*) *(?:title=\"(?P<title>[^\"]*)\")? *$"
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the word after the fence.
        title: a file's name, `SECOND`, or nothing.
        text: what stands between the fences, without their indentation.
        line: of the first fence, from 1.
    """

    language: str
    title: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page.

    Raises:
        ValueError: when a fence is not closed, has no language, or says what we cannot read.
    """
    found: list[Block] = []
    lines = iter(enumerate(page.splitlines(), 1))
    for number, line in lines:
        if not line.lstrip().startswith("```"):
            continue
        opened = _FENCE.match(line)
        if opened is None or not opened["language"]:
            raise ValueError(f"line {number}: a fence needs a language, and a title at most: {line}")
        text = []
        for _, inner in lines:
            if inner.strip() == opened["fence"]:
                break
            text.append(inner.removeprefix(opened["indent"]))
        else:
            raise ValueError(f"line {number}: nothing closes this fence")
        found.append(Block(opened["language"], opened["title"] or "", "\n".join(text) + "\n", number))
    return found


def differs(shown: str, real: str) -> str:
    """Where output is not as it is shown, or nothing. Space at the end of lines does not count."""
    wanted, got = _lines(shown), _lines(real)
    pattern = "".join(r"(?:.*\n)*?" if line == ANY else _line(line) for line in wanted)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in got)):
        return ""
    return f"shown:\n{shown}\nreal:\n{real}"


def _line(shown: str) -> str:
    return ".*".join(map(re.escape, shown.split(ANY))) + "\n"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


class Terminal:
    """A shell that stays, as the one that a reader types in.

    Args:
        folder: where it starts.
        environment: beside our own.
    """

    _MARK = "\N{END OF PROOF}"

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._errors = folder / f".{id(self)}.stderr"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                ["bash", "-e", "-o", "pipefail"],
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._printed: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._printed.put(line)
        self._printed.put(None)

    def type(self, commands: str) -> None:
        """Send commands, without waiting for them."""
        assert self._process.stdin is not None
        # What the commands read must not be what we type next.
        self._process.stdin.write(f"{{\n{commands}\n}} </dev/null\n")
        self._process.stdin.flush()

    def run(self, commands: str, seconds: float) -> str:
        """What commands print; they have to succeed."""
        self.type(f"{commands}\nprintf '%s\\n' {self._MARK}")
        printed = ""
        for line in self._until(seconds, commands):
            printed += line
            if printed.endswith(f"{self._MARK}\n"):
                return printed.removesuffix(f"{self._MARK}\n")
        raise AssertionError

    def wait_for(self, shown: str, seconds: float) -> str:
        """What commands that go on print, until it is as shown."""
        printed = ""
        for line in self._until(seconds, shown):
            printed += line
            if not differs(shown, printed):
                return printed
        raise AssertionError

    def _until(self, seconds: float, what: str) -> Iterator[str]:
        """Lines as they come; an error where they end, or the time is over."""
        end = time.monotonic() + seconds
        printed: list[str] = []
        while True:
            try:
                line = self._printed.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                said = f"{''.join(printed)}\n{self._errors.read_text()[-4000:]}"
                raise AssertionError(f"it ended, or took more than {seconds:.0f} s:\n{what}\n{said}")
            printed.append(line)
            yield line

    def end(self) -> None:
        """Press Ctrl-C on what runs, and close the terminal."""
        assert self._process.stdin is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            # All that was started here is in the shell's group.
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                pass
            break
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.unlink()


def follow(
    page: Sequence[Block],
    folder: Path,
    environment: Mapping[str, str],
    by_hand: Callable[[str], None] = lambda _: None,
    seconds: float = 1800,
) -> None:
    """Do what a page says, block by block, and hold what is printed against what it shows.

    Args:
        page: its blocks.
        folder: where the reader begins.
        environment: of both terminals, beside our own.
        by_hand: what the reader does once the second terminal is ready, given what that printed.
        seconds: the most that one block may take.

    Raises:
        AssertionError: where a command fails, or prints something else.
    """
    first = Terminal(folder, environment)
    second: Terminal | None = None
    try:
        for block, after in zip(page, [*page[1:], None], strict=True):
            shown = after.text if after is not None and after.language == OUTPUT else None
            if block.title == SECOND:
                assert shown is not None, (
                    f"line {block.line}: what it prints when it is ready has to be shown"
                )
                if second is not None:
                    second.end()
                second = Terminal(folder, environment)
                second.type(block.text)
                by_hand(second.wait_for(shown, seconds))
            elif block.language == OUTPUT:
                continue
            else:
                printed = first.run(_commands(block), seconds)
                wrong = differs(shown, printed) if shown is not None else ""
                assert not wrong, f"line {block.line}:\n{block.text}\n{wrong}"
    finally:
        if second is not None:
            second.end()
        first.end()


def _commands(block: Block) -> str:
    """What a block is for a shell: itself, a program for Python, or a file that is written."""
    if block.language in SHELL:
        return block.text
    end = "END_OF_BLOCK"
    assert end not in block.text
    if block.language == "python":
        return f"{sys.executable} - <<'{end}'\n{block.text}{end}"
    assert block.language in FILES, f"line {block.line}: nobody knows how to run {block.language!r}"
    assert block.title, f"line {block.line}: a file needs its name as title"
    return f"cat > '{block.title}' <<'{end}'\n{block.text}{end}"
