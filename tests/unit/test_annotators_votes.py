from __future__ import annotations

import pytest

from pipeline.annotators import Label, Vote, aggregate, aggregate_class, describe
from pipeline.annotators.base import NOTE_CHARS, cut


def ok(score: float, family: str = "minilm", value: str | None = None) -> Vote:
    said = value or ("unsafe" if score >= 0.5 else "safe")
    return Vote("i", "text_safe", f"a-{family}", family, "ok", said, score)


def failed(status: str = "unscorable") -> Vote:
    return Vote("i", "text_safe", "b", "qwen2.5", status, None, None, "why")  # type: ignore[arg-type]


def label_of(votes: list[Vote], threshold: float) -> Label:
    (label,) = aggregate(votes, threshold).values()
    return label


def named(name: str, support: float) -> Vote:
    return Vote("i", "image_class", "c", "minilm", "ok", name, support)


def test_one_vote_is_its_own_label() -> None:
    label = label_of([ok(0.7)], 0.5)
    assert (label.value, label.score, label.agreement, label.n) == ("unsafe", 0.7, 1.0, 1)


@pytest.mark.parametrize("votes", [[failed()], [failed("blocked"), failed("error")]])
def test_what_nobody_could_score_is_not_safe(votes: list[Vote]) -> None:
    label = label_of(votes, 0.5)
    assert (label.value, label.score, label.agreement, label.n) == (None, None, None, 0)


def test_a_failed_vote_does_not_dilute_the_others() -> None:
    assert label_of([ok(0.9), failed()], 0.5).score == 0.9


def test_the_threshold_itself_is_unsafe() -> None:
    assert label_of([ok(0.4), ok(0.6, "qwen2.5")], 0.5).value == "unsafe"
    assert label_of([ok(0.4), ok(0.6, "qwen2.5")], 0.501).value == "safe"


def test_agreement_is_the_share_of_families_on_the_winning_side() -> None:
    label = label_of([ok(0.9), ok(0.8, "qwen2.5"), ok(0.1, "other")], 0.5)
    assert label.value == "unsafe"
    assert label.agreement == pytest.approx(0.667)


def test_two_sizes_of_one_model_are_one_voice() -> None:
    label = label_of([ok(0.9, "qwen2.5"), ok(0.9, "qwen2.5"), ok(0.0)], 0.5)
    assert (label.score, label.n) == (0.45, 2)


def test_the_order_of_votes_changes_nothing() -> None:
    votes = [ok(0.123), ok(0.456, "qwen2.5"), ok(0.789, "other")]
    assert label_of(votes, 0.5) == label_of(votes[::-1], 0.5)


def test_each_item_has_its_label_and_questions_are_not_mixed() -> None:
    other = Vote("j", "text_safe", "a", "minilm", "ok", "safe", 0.1)
    assert {i: label.value for i, label in aggregate([ok(0.9), other], 0.5).items()} == {
        "i": "unsafe",
        "j": "safe",
    }
    with pytest.raises(ValueError, match="one question at a time"):
        aggregate([ok(0.9), Vote("i", "pair_safe", "a", "minilm", "ok", "safe", 0.1)], 0.5)
    assert aggregate([], 0.5) == {}


def test_the_class_with_most_support_wins() -> None:
    label = aggregate_class([named("suicide", 0.4), named("terrorism", 0.5), named("suicide", 0.3)])
    assert (label.value, label.support, label.n) == ("suicide", 0.583, 3)


def test_of_equal_classes_the_first_in_the_alphabet_wins() -> None:
    assert aggregate_class([named("suicide", 0.5), named("race", 0.5)]).value == "race"


def test_votes_for_safe_name_no_class() -> None:
    assert aggregate_class([named("safe", 0.9)]).value is None


@pytest.mark.parametrize(
    ("status", "value", "score"), [("ok", None, None), ("error", "safe", 0.1), ("ok", "safe", None)]
)
def test_a_vote_says_something_exactly_when_it_is_ok(
    status: str, value: str | None, score: float | None
) -> None:
    with pytest.raises(ValueError, match="vote of"):
        Vote("i", "text_safe", "a", "f", status, value, score)  # type: ignore[arg-type]


def test_notes_are_cut_to_one_line() -> None:
    note = cut("a\nb " * 200)
    assert len(note) == NOTE_CHARS
    assert "\n" not in note
    assert note.endswith("…")
    assert cut(" short\nnote ") == "short note"


def test_an_image_in_words() -> None:
    assert describe("a sign", "KEEP\n\n OUT ") == "Picture: a sign\nText in the picture: KEEP / OUT"
    assert describe(None, "A") == "Text in the picture: A"
    assert describe("  ", "") is None
