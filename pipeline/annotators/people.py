"""People who vote: what they say stands among the votes, and their majority decides (`aggregate`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.annotators.base import PEOPLE, Question, Vote, cut
from schemas.reviews import HumanVote, load_reviews

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

__all__ = ["People", "human_votes", "open_people"]


class People:
    """The votes of people on some questions; each is taken when its item is labelled."""

    def __init__(self, votes: Iterable[Vote]) -> None:
        """Begin with none of them taken."""
        self._left: dict[tuple[str, Question], list[Vote]] = defaultdict(list)
        for vote in votes:
            self._left[vote.item_id, vote.question].append(vote)

    def take(self, item_id: str, questions: Iterable[Question]) -> list[Vote]:
        """The votes on an item, in the order of their lines."""
        return [vote for question in questions for vote in self._left.pop((item_id, question), [])]

    @property
    def left(self) -> list[Vote]:
        """Votes on what was not labelled."""
        return [vote for votes in self._left.values() for vote in votes]


def open_people(workspace: Workspace, questions: Iterable[Question]) -> People:
    """The votes of people in a workspace on some questions.

    Raises:
        InputError: naming the line of the file that cannot be used.
    """
    asked = frozenset(questions)
    classes = frozenset(info.name for info in workspace.taxonomy.classes())
    said = load_reviews(workspace.root, classes)
    return People(vote for vote in human_votes(said) if vote.question in asked)


def human_votes(said: Iterable[HumanVote]) -> list[Vote]:
    """Votes as annotators give them; of two by one person on the same the later counts."""
    last = {(vote.item_id, vote.question, vote.annotator): vote for vote in said}
    return [
        Vote(
            vote.item_id,
            vote.question,
            vote.annotator,
            PEOPLE + vote.annotator,
            "ok",
            vote.value,
            0.0 if vote.value == "safe" else 1.0,
            cut(vote.note),
        )
        for vote in last.values()
    ]
