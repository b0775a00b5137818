"""Stage collect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline.collect.blocklist import BLOCKED, BlockLists, load_block_lists
from pipeline.collect.choice import Choice
from pipeline.collect.fetch import Fetcher
from pipeline.collect.fetched import FetchedStore, now
from pipeline.collect.metadata import Candidate, judged
from pipeline.collect.sources import Problem, Source, open_source
from pipeline.store import Failures, TableWriter, sha256_bytes
from pipeline.workspace import Progress, Workspace
from schemas import params
from schemas.errors import InputError
from schemas.rows import RAW_IMAGES

__all__ = ["check", "run"]


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `images.parquet` (bytes as received, with origin) and `failures.parquet` to `out`."""
    failures = Failures("collect")
    collect = workspace.params.collect
    lists = load_block_lists(workspace.root, collect.block_lists)
    known = {info.name for info in workspace.taxonomy.classes()}
    with ExitStack() as opened:

        @cache
        def store() -> FetchedStore:
            return opened.enter_context(FetchedStore(workspace.fetched))

        @cache
        def fetcher() -> Fetcher:
            return opened.enter_context(Fetcher(collect.fetch, store(), collect.max_bytes, lists.hit))

        images = opened.enter_context(TableWriter(out / "images.parquet", RAW_IMAGES))
        if collect.block_lists and workspace.fetched.exists():
            _forget_listed(store(), lists, failures, progress)
        for said in collect.sources:
            source = open_source(workspace.root, said, known, collect.max_bytes, fetcher)
            progress.start(f"collect {_place(said)}", None)
            try:
                for row in _rows(workspace, said, source, lists, failures):
                    images.write(row)
                    progress.advance()
            except _BlockedError as blocked:
                failures.add(blocked.sha256, blocked.where, BLOCKED, f"{blocked.match} at {now()}")
                failures.add("", _place(said), "source stopped", "an image of it is on a block list")
                if said.kind == "urls":
                    store().forget(blocked.sha256)  # it may be there from before it was listed
            except InputError as error:
                failures.add("", _place(said), "source cannot be read", str(error))
            except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
                # Whatever else a hostile file makes a library do: the other sources go on. What stops a
                # build, such as a full disk, is an OSError.
                failures.add("", _place(said), "source cannot be read", f"{type(error).__name__}: {error}")
    failures.write(out)


def _forget_listed(store: FetchedStore, lists: BlockLists, failures: Failures, progress: Progress) -> None:
    """Hold what was fetched before against the lists that hold now."""
    stored = list(store.hashes())
    progress.start("block lists", len(stored))
    for sha256 in stored:
        if match := lists.hit_stored(sha256, partial(store.bytes_of, sha256)):
            for url in store.forget(sha256):
                failures.add(sha256, url, BLOCKED, f"{match} at {now()}")
        progress.advance()


def check(workspace: Workspace) -> None:
    """Look at sources and block lists before any work.

    Raises:
        InputError: the first problem found.
    """
    collect = workspace.params.collect
    load_block_lists(workspace.root, collect.block_lists)
    known = {info.name for info in workspace.taxonomy.classes()}

    def nobody() -> Fetcher:
        raise AssertionError("a check fetches nothing")

    for i, said in enumerate(collect.sources):
        if said.intended is not None and said.intended.class_ not in known:
            raise InputError(
                f"{workspace.root / 'params.yaml'}: collect.sources.{i}.intended.class: "
                f"the taxonomy has no class {said.intended.class_!r}"
            )
        open_source(workspace.root, said, known, collect.max_bytes, nobody).check()


class _BlockedError(Exception):
    """An image is on a block list; nothing but its hash, its origin and the match is kept of it."""

    def __init__(self, sha256: str, where: str, match: str) -> None:
        super().__init__(match)
        self.sha256, self.where, self.match = sha256, where, match


def _rows(
    workspace: Workspace, said: params.Source, source: Source, lists: BlockLists, failures: Failures
) -> Iterator[dict[str, Any]]:
    """The rows of one source: of each cell its share, and where one fails the next in its place."""
    classes = {info.name for info in workspace.taxonomy.classes()}
    told = failures

    def listed() -> Iterator[Candidate]:
        nonlocal told
        # What is wrong with the list is told once, however often it is read.
        hears, told = told, Failures("collect")
        for found in source.listed(hears):
            if candidate := judged(found, said, classes, hears):
                yield candidate

    wanted = [info.name for info in workspace.classes()]
    choice = Choice(workspace.params.collect.per_class, workspace.params.seed, wanted)
    for chosen in choice.rounds(listed):
        for candidate, got in zip(chosen, source.read([c.found for c in chosen]), strict=False):
            where = candidate.found.where
            if isinstance(got, Problem):
                if got.reason == BLOCKED:
                    sha256, _, kind_and_hash = got.detail.partition(" ")
                    raise _BlockedError(sha256, where, kind_and_hash)
                failures.add("", where, got.reason, got.detail)
                continue
            sha256 = sha256_bytes(got.data)
            if match := lists.hit(got.data):
                raise _BlockedError(sha256, where, match)
            choice.take(candidate)
            yield candidate.row(said.kind, sha256, got.data, got.retrieved_at)


def _place(said: params.Source) -> str:
    if isinstance(said, params.HubSource) and said.path is None:
        return f"hub:{said.dataset}@{said.revision}"
    return str(said.path)
