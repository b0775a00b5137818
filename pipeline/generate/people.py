"""Invented people: their data belongs to nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

__all__ = ["Person", "card_number", "day", "person"]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist."""

    first: str
    last: str
    woman: bool
    born: date
    street: str
    town: str
    phone: str
    company: str
    doctor: str

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"


def person(rng: Random, *, woman: bool | None = None) -> Person:
    """An adult with data from Faker.

    Args:
        rng: the drawing's source of chance.
        woman: which first names to choose from; None leaves it to chance.
    """
    from faker import Faker  # slow to import

    fake = Faker("en_US")
    fake.seed_instance(rng.getrandbits(32))
    is_woman = rng.random() < 0.5 if woman is None else woman
    return Person(
        first=_short(fake.first_name_female if is_woman else fake.first_name_male, 11),
        last=_short(fake.last_name, 11),
        woman=is_woman,
        # Faker reckons ages from today; a fixed range keeps bytes the same and everybody grown up.
        born=day(rng, 1948, 1998),
        street=_short(fake.street_address, 22),
        town=f"{_short(fake.city, 16)}, {fake.state_abbr(include_territories=False)} {fake.postcode()}",
        phone=f"{rng.randint(201, 989)}-555-01{rng.randint(0, 99):02d}",  # reserved for fiction
        company=_short(fake.company, 24),
        doctor=f"Dr. {fake.first_name()[0]}. {_short(fake.last_name, 11)}",
    )


def day(rng: Random, first_year: int, last_year: int) -> date:
    """A day in a range of years, both included."""
    start = date(first_year, 1, 1)
    return start + timedelta(days=rng.randrange((date(last_year + 1, 1, 1) - start).days))


def _short(invent: Callable[[], str], longest: int) -> str:
    """What `invent` gives, asked again until it fits on a form."""
    while len(value := invent()) > longest:
        pass
    return value


def card_number(rng: Random) -> str:
    """Sixteen digits that look like a bank card's and fail the Luhn check, so that no card can have them."""
    digits = [rng.choice((4, 5)), *(rng.randint(0, 9) for _ in range(14))]
    doubled = sum(sum(divmod(d * 2, 10)) if i % 2 == 0 else d for i, d in enumerate(digits))
    right = -doubled % 10
    digits.append((right + rng.randint(1, 9)) % 10)
    number = "".join(map(str, digits))
    return " ".join(number[i : i + 4] for i in range(0, 16, 4))
