"""Pictures that are made already: a killed run makes them no second time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.collect.blocklist import BlockLists
from pipeline.collect.screen import BlockedError, Screen
from pipeline.store import canonical_json, sha256_bytes, sha256_text, write_json
from pipeline.store.blobs import Blobs, LostBlobError

__all__ = ["Finished", "FinishedPicture"]


@dataclass(frozen=True, slots=True)
class FinishedPicture:
    """A picture that was made.

    Attributes:
        data: the encoded file; empty where the safety checker withheld the picture.
        recipe: the whole recipe.
    """

    data: bytes
    recipe: dict[str, Any]


class Finished:
    """A folder of files by their hash, and for each recipe a note which of them it gave.

    What is on a block list is not kept, and known by its hash.
    """

    def __init__(self, folder: Path, lists: BlockLists) -> None:
        """Name the folder; it is made when the first picture comes."""
        self._notes = folder / "recipes"
        self._blobs = Blobs(folder / "files")
        self._files = Screen(self._blobs, lists)

    def get(self, asked: Mapping[str, Any]) -> FinishedPicture | BlockedError | None:
        """What the recipe gave; None where that is not known, or its file is gone or damaged.

        A picture that is on a block list is given as the error that says so. Once it is listed no more it
        can be made again.
        """
        try:
            note = json.loads(self._note(asked).read_text())
            data = self._files(note["sha256"]) if note["sha256"] else b""
        except (FileNotFoundError, json.JSONDecodeError, LostBlobError):
            return None
        except BlockedError as error:
            return error if error.listed else None
        return FinishedPicture(data, note["recipe"])

    def put(self, asked: Mapping[str, Any], made: FinishedPicture) -> None:
        """Keep a picture: its file first, so that a note never names one that is not there."""
        sha256 = ""
        if made.data:
            self._blobs.delete(sha256_bytes(made.data))  # a damaged one would stay
            sha256 = self._files.put(made.data)
        write_json(self._note(asked), {"sha256": sha256, "recipe": made.recipe})

    def _note(self, asked: Mapping[str, Any]) -> Path:
        key = sha256_text(canonical_json(asked))
        return self._notes / key[:2] / f"{key[2:]}.json"
