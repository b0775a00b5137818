"""Kinds of personal data in a text that was read from an image; the data themselves are not kept."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["personal_data"]

_PATTERNS: Final[dict[str, re.Pattern[str]]] = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"),
    "phone": re.compile(r"(?<![\d.])\+\d[\d ()/.-]{7,}\d|(?<!\d)\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "date_of_birth": re.compile(r"(?i)\b(date of birth|birth ?date|born|d\.?o\.?b\.?)\b\D{0,12}\d"),
    "document_number": re.compile(
        r"(?i)\b(passport|licen[cs]e|id(entity)? card|card|document|social security|insurance)\s*"
        r"(no\.?|number|nr\.?|#)\W{0,4}[A-Z0-9][A-Z0-9 -]{4,}"
    ),
}
_CARD: Final = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")


def personal_data(text: str) -> list[str]:
    """The kinds of personal data that a text seems to hold, in alphabetical order.

    Patterns tell form, not truth: an invented number looks like a real one. Card numbers and IBANs count when
    their check digits are right (Luhn, ISO/IEC 7812-1; mod 97, ISO 13616).
    """
    found = {kind for kind, pattern in _PATTERNS.items() if kind != "iban" and pattern.search(text)}
    if any(_right_iban(match[0]) for match in _PATTERNS["iban"].finditer(text)):
        found.add("iban")
    if any(_right_card(match[0]) for match in _CARD.finditer(text)):
        found.add("payment_card")
    return sorted(found)


def _right_card(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _right_iban(text: str) -> bool:
    letters = text.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in letters[4:] + letters[:4])) % 97 == 1
