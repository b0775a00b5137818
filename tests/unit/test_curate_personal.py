"""Kinds of personal data in what was read from an image."""

from __future__ import annotations

import pytest
from faker import Faker
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curate.personal import personal_data


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jo.doe+x@mail.example.org today", ["email"]),
        ("call +49 (30) 1234-5678", ["phone"]),
        ("call (555) 123-4567", ["phone"]),
        ("IBAN DE89 3704 0044 0532 0130 00", ["iban"]),
        ("IBAN DE89 3704 0044 0532 0130 01", []),
        ("4111 1111 1111 1111", ["payment_card"]),
        ("4111 1111 1111 1112", []),
        ("0000 0000 0000 0000", []),
        ("Date of birth: 3 May 1981", ["date_of_birth"]),
        ("PASSPORT NO. X4RTBPFW4", ["document_number"]),
        ("Opening hours 10-18, 24 December 2026, page 3 of 12", []),
        ("12.5 % of 1,234,567 people", []),
        ("", []),
    ],
)
def test_kinds(text: str, kinds: list[str]) -> None:
    assert personal_data(text) == kinds


def test_what_faker_invents_is_seen() -> None:
    faker = Faker("en_US")
    faker.seed_instance(1)
    assert all("payment_card" in personal_data(faker.credit_card_number("visa16")) for _ in range(50))
    assert all("iban" in personal_data(f"account {faker.iban()}") for _ in range(50))
    assert all("email" in personal_data(f"mail {faker.email()}") for _ in range(50))


@given(st.text(max_size=300))
def test_any_text_has_an_answer(text: str) -> None:
    assert personal_data(text) == sorted(set(personal_data(text)))
