"""Proof that an SSU pair is what it is called: apart both halves are safe, and together they harm somebody.

Two annotators of different families that see pixels must both say that the pair is unsafe, and name the same
harmed party and the same kind of harm, in a fixed schema. Nobody is shown what the writer had in mind, so two
that agree have found the same harm. Statements of those who read a caption are kept and prove nothing: who
has not seen the picture cannot tell what else is in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.annotators import HarmReader, PairItem, Statement, ask_together
from pipeline.workspace import Progress

__all__ = ["Proof", "proof_rows", "prove", "prove_all"]

WITNESSES = 2
"""Families that have to agree."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a pair is proven to harm, and by what.

    Attributes:
        reason: why it is not; empty where it is.
        statements: everything that was said.
    """

    reason: str
    statements: tuple[Statement, ...]

    @property
    def proven(self) -> bool:
        """Whether it is."""
        return not self.reason


def prove(statements: Sequence[Statement], *, text_safe: bool, image_safe: bool) -> Proof:
    """Whether what was said of one pair proves that it is SSU.

    Args:
        statements: everything that was said of the pair.
        text_safe: the label of the text alone.
        image_safe: the label of the image alone.
    """
    return Proof(_why_not(statements, text_safe, image_safe), tuple(statements))


def _why_not(statements: Sequence[Statement], text_safe: bool, image_safe: bool) -> str:
    if not text_safe:
        return "the text alone is not safe"
    if not image_safe:
        return "the image alone is not safe"
    seen = [s for s in statements if s.sees == "pixels"]
    if len({s.family for s in seen}) < WITNESSES:
        return "fewer than two families that see pixels were asked"
    answered = [(s.family, s.said) for s in seen if s.said is not None]
    if len({family for family, _ in answered}) < WITNESSES:
        return "fewer than two families that see pixels have answered"
    unsafe = [(family, said) for family, said in answered if said.verdict == "unsafe"]
    if len({family for family, _ in unsafe}) < WITNESSES:
        return "fewer than two families that see pixels say unsafe"
    by_harm: dict[tuple[str, str], set[str]] = defaultdict(set)
    by_harmed: dict[str, set[str]] = defaultdict(set)
    for family, said in unsafe:
        by_harm[said.harmed, said.harm].add(family)
        by_harmed[said.harmed].add(family)
    if any(len(families) >= WITNESSES for families in by_harm.values()):
        return ""
    if any(len(families) >= WITNESSES for families in by_harmed.values()):
        return "they differ on what the harm is"
    return "they differ on who is harmed"


def prove_all(
    witnesses: Sequence[HarmReader],
    items: Sequence[PairItem],
    alone: Mapping[str, tuple[bool, bool]],
    progress: Progress,
) -> dict[str, Proof]:
    """The proof of each pair, by its id.

    Args:
        witnesses: who is asked; each about every pair.
        items: the pairs.
        alone: of each pair whether its text and whether its image is safe by its label.
        progress: counts what is answered.
    """
    given: dict[str, list[Statement]] = {item.id: [] for item in items}
    progress.start(f"harm, {len(witnesses)} endpoints", len(items) * len(witnesses))
    for statements in ask_together(witnesses, lambda witness: witness.state(items, progress)):
        for statement in statements:
            given[statement.item_id].append(statement)
    return {
        item_id: prove(said, text_safe=alone[item_id][0], image_safe=alone[item_id][1])
        for item_id, said in given.items()
    }


def proof_rows(proofs: Mapping[str, Proof]) -> Iterator[dict[str, Any]]:
    """The rows of `proofs.parquet`: one a statement, each with what came of its pair."""
    for proof in proofs.values():
        for statement in proof.statements:
            said = statement.said
            yield {
                "item_id": statement.item_id,
                "annotator": statement.annotator,
                "family": statement.family,
                "sees": statement.sees,
                "status": statement.status,
                "harmed": said.harmed if said else None,
                "harm": said.harm if said else None,
                "how": said.how if said else None,
                "verdict": said.verdict if said else None,
                "note": statement.note,
                "call_key": statement.call_key,
                "proven": proof.proven,
                "reason": proof.reason,
            }
