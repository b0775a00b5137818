"""Images behind URLs, from a list in CSV or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.collect.metadata import FIELDS
from pipeline.collect.records import header, matched, records
from pipeline.collect.sources.base import Found, Problem, Received
from pipeline.store import Failures, sha256_text
from schemas.errors import InputError
from schemas.params import UrlsSource

if TYPE_CHECKING:
    from pipeline.collect.fetch import Fetcher

__all__ = ["Urls"]


class Urls:
    """A list of URLs; only those that are chosen are fetched."""

    def __init__(self, root: Path, source: UrlsSource, fetcher: Callable[[], Fetcher]) -> None:
        """Name the list; `fetcher` gives who fetches, and is called when there is something to fetch."""
        self._said, self._fetcher = source, fetcher
        self._path = root / source.path

    def check(self) -> None:
        """Look at the columns.

        Raises:
            InputError: when the list cannot be read, or has no URLs.
        """
        self._columns()

    def listed(self, failures: Failures) -> Iterator[Found]:
        """The images in the order of the list."""
        columns = self._columns()
        named: set[str] = set()
        for record in records(self._path, failures, sorted(set(columns.values()))):
            fields = {ours: record.fields.get(theirs) for ours, theirs in columns.items()}
            url = fields["url"]
            if not isinstance(url, str) or not url:
                failures.add("", str(self._said.path), "row not valid", f"{record.line}: url: it needs one")
            elif (key := sha256_text(url)[:32]) in named:
                failures.add("", url, "named twice", f"{record.line}: the list has another row for it")
            else:
                named.add(key)
                yield Found(fields, url, url, record.line, url)

    def read(self, chosen: Sequence[Found]) -> Iterator[Received | Problem]:
        """Fetch the chosen, or take what was fetched before."""
        return self._fetcher().fetch([found.at for found in chosen])

    def _columns(self) -> dict[str, str]:
        names = header(self._path)
        if names is None:
            raise InputError(f"{self._path}: a list of URLs is .csv or .parquet")
        fields = tuple(f for f in FIELDS if f != "file_name")
        found = matched(names, self._said.named(), fields, self._path)
        if "url" not in found:
            raise InputError(
                f"{self._path}: no column url; there are: {', '.join(names)}; name theirs in columns.url"
            )
        return found
