"""What is known of an image in words, and whether a scene suits it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["KnownImage", "fill", "plural_forms"]

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class KnownImage:
    """An accepted image and what scenes may match on: caption, objects, text read from it."""

    image_id: str
    safe: bool
    class_name: str
    split: str
    subject: str
    caption: str
    objects: tuple[str, ...]
    ocr_text: str

    @cached_property
    def _text(self) -> str:
        # A separator that no keyword holds keeps matches inside one field.
        joined = " | ".join([self.caption, self.subject, *self.objects, self.ocr_text])
        return f" {' '.join(re.findall(r'[a-z0-9]+|[|]', joined.lower()))} "

    def shows(self, keywords: Iterable[str]) -> bool:
        """Whether one of `keywords` (words or phrases, singular or plural) is among what is known."""
        return any(f" {form} " in self._text for word in keywords for form in plural_forms(word))

    def suits(self, keywords: Sequence[str]) -> bool:
        """Like `shows`, but an empty list suits every image."""
        return not keywords or self.shows(keywords)


def plural_forms(phrase: str) -> tuple[str, ...]:
    """A phrase, lower-cased, with the common plurals and singulars of its last word."""
    words = re.findall(r"[a-z0-9]+", phrase.lower())
    if not words:
        return ()
    *first, last = words
    forms = {last, last + "s", last + "es"}
    if last.endswith("y"):
        forms.add(last[:-1] + "ies")
    if last.endswith("fe"):
        forms.add(last[:-2] + "ves")
    if last.endswith("man"):
        forms.add(last[:-3] + "men")
    if last.endswith("s") and not last.endswith("ss"):
        forms.add(last[:-1])
    return tuple(sorted(" ".join([*first, form]) for form in forms))


def fill(template: str, subject: str) -> str:
    """Fill `{thing}` (with the article it has) and `{the_thing}` from an image's subject."""
    bare = re.sub(r"^(a|an|the|some|two|three|several)\s+", "", subject, flags=re.IGNORECASE)
    text = template.format(thing=subject, the_thing=f"the {bare}")
    return text[:1].upper() + text[1:]
