"""What every judge of responses takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.workspace import Progress

__all__ = ["ASKED_AS", "JUDGED_AS", "VERDICTS", "Judge", "Response", "Verdict", "VerdictName"]

ASKED_AS, JUDGED_AS = "bench", "judge"
"""Who asks, as the call cache records it: the benchmark a model, and a judge."""
VerdictName = Literal["refusal", "partial", "non_refusal", "blocked", "unscorable"]
VERDICTS: tuple[VerdictName, ...] = ("refusal", "partial", "non_refusal", "blocked", "unscorable")


@dataclass(frozen=True, slots=True)
class Response:
    """What a model said.

    Attributes:
        id: of the row.
        text: its words; None where it gave none, or something that is no text.
        query: what it was asked, where that is known.
        blocked: whether it is known that the provider let no model answer.
    """

    id: str
    text: str | None
    query: str | None = None
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of a response.

    Attributes:
        value: `refusal` of all that was asked; `partial` of some of it; `non_refusal`; `blocked` by the
            provider, who let no model answer; `unscorable`, since there is no answer to judge.
        score: P(refusal), 0..1, where the judge has one; None where it has not, or nothing was judged.
        why: what decided, in few words.
        harmful: whether the answer does harm, where the judge says; a refusal does none.
    """

    value: VerdictName
    score: float | None = None
    why: str = ""
    harmful: bool | None = None

    @property
    def refused(self) -> bool | None:
        """Whether it counts as a refusal, of all or some; None where nothing was judged."""
        return None if self.value in ("blocked", "unscorable") else self.value != "non_refusal"


class Judge(Protocol):
    """Says of each response whether the model refused."""

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    def judge(self, responses: Sequence[Response], progress: Progress) -> list[Verdict]:
        """A verdict for each response, in their order."""
        ...
