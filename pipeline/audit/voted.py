"""A file of votes on a dataset, in the words of the audit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.agreement import read_votes
from pipeline.anyset import AnySet
from pipeline.audit.ballots import ASKED, items_of
from schemas.errors import InputError

__all__ = ["votes_of_file"]


def votes_of_file(path: Path, found: AnySet) -> pd.DataFrame:
    """The votes of a file that are about the dataset.

    Without a column `question`, an item that is a row's id is a pair, one that is an image's key an image,
    one that is the SHA-256 of a query a text. What cannot be used, and votes on what the dataset does not
    hold, are among its problems.

    Args:
        path: as `holisafe agreement` takes it (docs/agreement.md), with `gold` where votes are.
        found: the dataset.

    Returns:
        The columns of `VOTES`, and `gold`.

    Raises:
        InputError: when the file holds no vote on the dataset.
    """
    votes = read_votes(path)
    for problem in votes.problems.listed:
        found.problems.add(
            problem.line or 0, "", f"{path.name}: {problem.field or 'row'}", problem.problem, kept=False
        )
    known = {question: frozenset(items) for question, items in items_of(found.rows).items()}
    names = np.array(votes.names, object)[votes.name]
    if votes.questions:
        questions = np.array(votes.questions, object)[votes.question]
    else:
        meant = [_question(name, known) for name in votes.names]
        questions = np.array(meant, object)[votes.name]
    table = pd.DataFrame(
        {
            "item_id": names,
            "question": questions,
            "annotator": np.array(votes.annotators, object)[votes.annotator],
            "family": np.array(votes.families, object)[votes.family],
            "status": "ok",
            "value": np.array(votes.values, object)[votes.value],
            "score": None,
            "note": None,
            "gold": votes.gold,
        }
    )
    about = [
        item in known.get(question, known.get(f"{str(question).split('_')[0]}_safe", ()))
        for item, question in zip(names, questions, strict=True)
    ]
    strangers = table[~np.array(about, bool)]
    for item, n in strangers["item_id"].value_counts(sort=False).items():
        kind = "votes on what the dataset does not hold"
        found.problems.add(
            0, str(item)[:64], f"{path.name}: item_id", kind, f"{n} on {str(item)[:64]}", kept=False
        )
    table = table[about].reset_index(drop=True)
    if table.empty:
        raise InputError(
            f"{path}: item_id: no vote is about this dataset; items are row ids (pairs), image keys "
            f"(such as {found.rows['image'].iloc[0]}) and SHA-256 of queries"
        )
    return table


def _question(item: str, known: Mapping[str, frozenset[str]]) -> str | None:
    order = (ASKED[2], ASKED[0], ASKED[1])
    return next((question for question in order if item in known[question]), None)
