"""Embeddings of images, kept so that no image is embedded twice by the same encoder.

One SQLite file. What was committed survives a kill at any moment; a build that was stopped goes on where it
was. A row holds for the bytes it was made from: an image that is normalised in another way is embedded anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from pipeline.encoders._common import FloatArray
from pipeline.store import told_as_of_file

__all__ = ["FeatureStore"]

_AT_ONCE = 500  # parameters of one statement
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
  image_id TEXT NOT NULL, encoder TEXT NOT NULL, content TEXT NOT NULL, vector BLOB NOT NULL,
  PRIMARY KEY (image_id, encoder)
) WITHOUT ROWID
"""


class FeatureStore:
    """Embeddings by image and encoder, as little-endian float32: scores from kept ones are the same."""

    def __init__(self, path: Path) -> None:
        """Open the file, or start it.

        Raises:
            OSError: here and later, where it cannot be read or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with told_as_of_file(path):
            self._file = sqlite3.connect(path, timeout=60)
            self._file.execute("PRAGMA journal_mode = WAL")
            # A kill loses nothing that was committed; a power cut may lose the last rows, which are made
            # again.
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute("PRAGMA secure_delete = ON")
            self._file.execute(_SCHEMA)

    def __enter__(self) -> FeatureStore:
        """Use as a context: the file is closed at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def get(self, encoder: str, contents: Mapping[str, str]) -> dict[str, FloatArray]:
        """The embeddings there are.

        Args:
            encoder: the encoder's identity.
            contents: the SHA-256 of each image's normalised file, by image id.

        Returns:
            Embeddings by image id, of those that were made from just these bytes.
        """
        ids = list(contents)
        found: dict[str, FloatArray] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            select = (
                f"SELECT image_id, content, vector FROM features WHERE encoder = ? AND image_id IN ({marks})"  # noqa: S608 - marks only
            )
            with told_as_of_file(self._path):
                rows = self._file.execute(select, (encoder, *some)).fetchall()
            found |= {i: np.frombuffer(v, "<f4") for i, content, v in rows if content == contents[i]}
        return found

    def put(self, encoder: str, rows: Iterable[tuple[str, str, FloatArray]]) -> None:
        """Keep embeddings, all or none; a row is image id, SHA-256 of its normalised file, embedding."""
        kept = [(i, encoder, content, vector.astype("<f4").tobytes()) for i, content, vector in rows]
        with told_as_of_file(self._path), self._file:
            self._file.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", kept)

    def forget(self, image_ids: Sequence[str]) -> int:
        """Delete the embeddings of these images by every encoder; return how many there were."""
        with told_as_of_file(self._path):
            with self._file:
                gone = self._file.executemany(
                    "DELETE FROM features WHERE image_id = ?", [(i,) for i in image_ids]
                ).rowcount
            # Their bytes go too: out of the file, and out of the log beside it.
            self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone
