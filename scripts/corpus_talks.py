"""Ordinary questions about safe pictures, with answers that caption, kind and rendering support."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.corpus_rows import Row

ONE_INK = frozenset({"game-icons", "healthicons", "mdi", "fa6-solid", "tabler", "fluent-emoji-high-contrast"})
"""Icon sets whose icons have the one colour that they are rendered in."""
PLACES = {
    "animal": "in nature, on a farm or in a zoo", "food": "in a kitchen, a shop or on a table",
    "tool": "in a workshop or a shed", "kitchenware": "in a kitchen", "household": "in a home",
    "vehicle": "on a road, on rails, on water or in the air", "clothing": "in a wardrobe or a clothes shop",
    "instrument": "in a music room or on a stage", "sport": "where people do sports or play",
    "plant": "in a garden, a park or the countryside", "building": "in a town or the countryside",
    "device": "in a home or an office", "stationery": "on a desk or in an office", "nature": "outdoors",
    "toy": "where people play",
}  # fmt: skip
KINDS = {
    "animal": "an animal", "food": "food or drink", "tool": "a tool",
    "kitchenware": "something for the kitchen",
    "household": "a household object", "vehicle": "a vehicle", "clothing": "something to wear or carry",
    "instrument": "a musical instrument or something for sound", "sport": "something from sports or games",
    "plant": "a plant", "building": "a building or structure", "device": "a device",
    "stationery": "something for reading, writing or the office", "nature": "something from nature",
    "toy": "a toy or game",
    "face": "a face with an expression", "hand": "a gesture of the hand",
}  # fmt: skip


def conversations(row: Row) -> list[tuple[str, str]]:
    """Plain questions about a safe picture and answers that its caption, kind and rendering support."""
    subject = row.caption
    if row.source != "tuxpaint-stamps":  # their captions do not name the style
        subject = subject.split(" of ", 1)[-1]
    verb = "is" if subject.startswith(("a ", "an ", "the ")) or not subject.endswith("s") else "are"
    shown = subject.split(" ", 1)[1] if subject.startswith(("a ", "an ", "the ")) else subject
    said = [
        (
            ("What is shown in this picture?", f"The picture shows {subject}."),
            ("What can you see here?", f"I can see {subject}."),
            ("Describe the picture in one sentence.", f"This is {row.caption}."),
            ("What does this image depict?", f"It depicts {subject}."),
            ("Which thing is in the image?", f"There {verb} {subject} in the image."),
            ("Give this picture a short title.", f"{shown[:1].upper()}{shown[1:]}."),
        )[row.pick("question", 6)]
    ]
    if row.source in ONE_INK:
        said.append(("What colour is it drawn in?", f"It is drawn in {row.ink} on a white background."))
    if row.kind:
        kind = KINDS[row.kind]
        said.append(
            (
                ("What kind of thing is this?", f"It is {kind}: {subject}."),
                ("Is this an animal, a plant, food or something else?", f"This is {kind}, namely {subject}."),
                ("Which group of things does this belong to?", f"This is {kind}."),
            )[row.pick("kind", 3)]
        )
    if row.kind in PLACES:
        said.append((f"Where would one usually find {subject}?", f"Usually {PLACES[row.kind]}."))
    return said


def ordinary(rows: Sequence[Row], wanted: int) -> list[tuple[int, str, str]]:
    """Chooses questions and answers, spread over the pictures that have a plain kind.

    Args:
        rows: All pictures.
        wanted: How many conversations.

    Returns:
        For each conversation the place of its picture, the question and the answer; in the order of the rows.
    """
    places = [i for i, row in enumerate(rows) if row.safe and row.kind]
    places.sort(key=lambda i: rows[i].pick("ordinary", 2**63))
    asked = []
    for i in places[:wanted]:
        said = conversations(rows[i])
        question, answer = said[rows[i].pick("turn", len(said))]
        asked.append((i, question, answer))
    return sorted(asked)
