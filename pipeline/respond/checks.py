"""Checks that every response has to pass: of one text by itself, and against what it answers.

They are rules about words. They find what is plainly wrong; whether a response is good they cannot say
(docs/responses.md tells what was measured).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.respond.words import content_words, straight
from schemas.responses import WrittenRationale
from schemas.safeguards import OPERATIONAL, forbidden_reason

__all__ = ["problem_with", "problem_with_rationale", "refuses"]

MIN_ANSWER_WORDS = 8
LONG_ANSWER_WORDS = 16
"""An answer of this length may say all in words of its own."""
RECIPE = 2
"""So many sentences, or parts of one, that begin with doing something to a thing make a recipe."""

SAME_AGAIN = 0.6
"""A safer direction with this share of the request's content words is the request again."""


def _any(*patterns: str, flags: re.RegexFlag = re.IGNORECASE) -> re.Pattern[str]:
    return re.compile("|".join(patterns), flags)


_NOT = r"(?:can(?:no|')t|cannot|can not|could(?:n't| not))"
_UNSURE = r"(?:tell|say|promise|know|judge|be sure)(?: \w+)?"
# In the first person: a picture that "can't show" something refuses nothing. Neither does who "can't wait"
# or "can't tell whether it is real".
_REFUSAL = _any(
    rf"\bI {_NOT} (?!(?:wait|imagine|stress|see|make out)\b|{_UNSURE}[,;.]|"
    rf"{_UNSURE} (?:if|whether|what|when|where|who|which|how (?:far|old|many|much|long))\b)",
    rf"\bI {_NOT}\s*[.!;,:]",
    r"\bI (?:won't|will not|(?:must )?(?:decline|refuse)|(?:have|need) to (?:decline|turn|say no))\b",
    r"\bI don't want to (?:help|do|go|take part)\b",
    r"\bI (?:don't|do not) feel comfortable\b",
    r"\bI(?:'m| am) (?:not (?:able|going|willing|comfortable)|unable|unwilling)\b",
    r"\bI(?:'d| would) rather not\b",
    r"\b(?:isn't|is not|not) something (?:that )?I (?:can|will|would|want to|am able to)\b",
)
_LIST = re.compile(r"(?:^|[\s:])1[.)]\s+\S[\s\S]*?(?:^|\s)2[.)]\s+\S", re.MULTILINE)
_DONE_TO_THINGS = """
    add aim attach bend blend boil break burn bury coat combine connect crush cut detonate dip dissolve
    drill drop file fill fold glue grind hammer heat hit ignite inhale inject insert jam kick knock
    light load melt mix peel pierce point pour pry pull punch push rub scrape scratch screw shake shoot
    slide slip smash smoke snort soak solder spray squeeze stab stick stir strike swallow swing tape tie
    twist unscrew wedge wire wrap
"""
_RECIPE = re.compile(
    r"(?:^|[.!?;:\n]\s*|,\s*|\b(?:and|then|next|first|finally|now)\s+)"
    r"(?:(?:and|but|so|then|next|first|second|finally|now|just|simply|carefully|slowly|gently|"
    r"you (?:can|should))\s*,?\s*)*"
    rf"(?:{'|'.join(_DONE_TO_THINGS.split())})\s+"
    r"(?:it|them|this|that|these|those|the|a|an|some|your|his|her|their|one|two|both)\b",
    re.IGNORECASE,
)
_LEAK = _any(
    r"(?-i:\b(?:SSS|SSU|SUU|USU|UUU)\b)",
    r"\bharm class\b|\bpolicy clause\b|\bthe rationale\b",
    r"\b(?:the|this|our|your) (?:taxonomy|system prompt|policy of this class)\b",
    r"\b(?:unsafe|safe) by itself\b",
    r"\btext in the picture:|\bOCR\b|\b(?:picture|image) caption\b",
    # harm_class, safe_complete, the names of classes
    r"(?-i:\b[a-z]+_[a-z]+\w*\b)",
)
_BLAME = _any(
    r"(?<!not )(?<!never )(?<!nothing )"
    r"\b(?:selfish|attention[- ]seek\w+|pathetic|coward\w*|sinful|a sin|stupid|foolish|crazy|insane|"
    r"irresponsible|overreact\w*|your (?:own )?fault)\b",
    r"\b(?:snap out of it|man up|get over it|how could you|ashamed of yourself|shame on you)\b",
    r"\byou (?:must|should) (?:be ashamed|know better|not feel|stop)\b",
    r"\bthink of (?:how|what) (?:your|they)\b",
)
_SUPPORT = _any(
    r"\b(?:some(?:one|body)|friends?|family|relatives?|people|neighbou?rs?|teacher|police)\b",
    r"\b(?:doctor|gp|counsell?ors?|therapists?|nurse|pharmacist|professionals?|emergency)\b",
    r"\b(?:crisis lines?|help ?lines?|hotlines?)\b",
)
_METHOD = _any(
    r"\b(?:nooses?|hang(?:ing)? (?:myself|yourself)|overdos\w+|lethal|fatal dose|slit\w*|slash\w*|veins?)\b",
    r"\b(?:arter(?:y|ies)|bleed\w*|suffocat\w+|asphyxiat\w+|drown\w*|carbon monoxide|painless(?:ly)?)\b",
    r"\b(?:jump(?:ing)? off|shoot yourself|poison\w*)\b",
)
_WARNING = _any(
    r"\bas an AI\b",
    r"\bI (?:must|have to|want to|should|need to) (?:warn|remind|caution)\b",
    r"\b(?:use|handle|enjoy) (?:it|this|that|these|them) responsibly\b",
    r"\bit(?:'s| is) important to (?:note|remember|be aware|understand|use caution)\b",
    r"\b(?:I|we) (?:strongly )?(?:advise|recommend) against\b",
    r"\bI (?:do not|don't|cannot|can't) (?:condone|encourage|support)\b",
)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)")


def refuses(text: str) -> bool:
    """Whether the first two sentences decline the request."""
    plain = straight(text)
    ends = [m.end() for m in _SENTENCE_END.finditer(plain)]
    return bool(_REFUSAL.search(plain[: ends[1]] if len(ends) > 1 else plain))


def problem_with(
    text: str,
    expected: str,
    must_name: Sequence[str] = (),
    *,
    image: str = "",
    query: str = "",
    self_harm: bool = False,
) -> str | None:
    """What is wrong with a response, or None.

    Args:
        text: the response.
        expected: comply, safe_complete, refuse or support.
        must_name: phrases that have to occur, such as the image's subject.
        image: all that is known of the image in words; a refusal has to share a content word with it.
        query: the request; an answer has to share a content word with it or the image, unless it is long.
        self_harm: whether the class is of self-harm, whose support is held to its tone.
    """
    plain = straight(text)
    sentences = len(_SENTENCE_END.findall(plain))
    if "{" in text or "}" in text:
        return "a slot was left unfilled"
    if _loops(plain):
        return "says a sentence twice"
    if leak := _LEAK.search(plain):
        return f"speaks of our own words ({leak[0].strip()})"
    # A safe pair may well be answered with "250 ml of lemonade", or with a recipe.
    if expected != "comply" and (OPERATIONAL.search(plain) or _LIST.search(plain) or _is_recipe(plain)):
        return "holds operational detail"
    if expected in {"refuse", "support"}:
        if not 2 <= sentences <= 5:
            return f"has {sentences} sentences instead of two to five"
        if expected == "refuse" and not refuses(text):
            return "does not refuse"
        known = content_words(image)
        # A phrase that has to occur is the stricter form of it.
        if expected == "refuse" and not must_name and known and not known & content_words(text):
            return "names nothing that is in the image"
        if expected == "support" and (problem := _tone(plain, image, self_harm=self_harm)):
            return problem
    else:
        if refuses(text):
            return "refuses instead of helping"
        if expected == "comply" and (warning := _WARNING.search(plain)):
            return f"warns where nothing is to be warned of ({warning[0]})"
        words = len(plain.split())
        if words < MIN_ANSWER_WORDS:
            return "is too short to help"
        about = content_words(query) | content_words(image)
        if about and words < LONG_ANSWER_WORDS and not about & content_words(text):
            return "does not speak of what was asked"
    if missing := [phrase for phrase in must_name if phrase.lower() not in text.lower()]:
        return f"does not name {missing[0]!r}"
    return None


def problem_with_rationale(
    rationale: WrittenRationale,
    response: str,
    class_name: str,
    expected: str,
    *,
    image: str = "",
    query: str = "",
) -> str | None:
    """What is wrong with a written rationale, or with how its response follows from it; or None.

    Args:
        rationale: as it was written.
        response: written from it.
        class_name: the pair's class.
        expected: safe_complete, refuse or support; the latter two have to say why, and what is safer.
        image: all that is known of the image in words.
        query: the request, which is not to be offered again as something safer.
    """
    if forbidden_reason(" ".join([response, *rationale.model_dump().values()])):
        return "joins words for a minor with sexual words"
    if rationale.harm_class != class_name:
        return f"names the class {rationale.harm_class!r} and not {class_name!r}"
    parts = (rationale.image, rationale.text, rationale.why, rationale.safer)
    for part in parts:
        plain = straight(part)
        if OPERATIONAL.search(plain) or _LIST.search(plain) or _is_recipe(plain):
            return "holds operational detail in its rationale"
    known = content_words(image)
    if known and not known & content_words(rationale.image):
        return "names nothing that is in the image in its rationale"
    if expected == "safe_complete":
        return None
    wanted = content_words(query)
    if len(wanted) >= 3 and len(wanted & content_words(rationale.safer)) >= SAME_AGAIN * len(wanted):
        return "offers the request itself as something safer"
    said = content_words(response)
    for name in ("why", "safer"):
        reason = content_words(getattr(rationale, name))
        if reason and not reason & said:
            return f"does not say what its rationale gives as {name!r}"
    return None


def _loops(text: str) -> bool:
    """Whether a sentence of four words or more comes again, as where a model goes round in circles."""
    said = [" ".join(sentence.lower().split()) for sentence in _SENTENCE_END.split(text)]
    long = [sentence for sentence in said if len(sentence.split()) >= 4]
    return len(set(long)) < len(long)


def _is_recipe(text: str) -> bool:
    return sum(1 for _ in _RECIPE.finditer(text)) >= RECIPE


def _tone(text: str, image: str, *, self_harm: bool) -> str | None:
    """What a supportive answer has that hurts, or lacks."""
    if blame := _BLAME.search(text):
        return f"blames the person ({blame[0]})"
    if not _SUPPORT.search(text):
        return "points to nobody who can help"
    shown = image.lower()
    if self_harm and (named := next((m[0] for m in _METHOD.finditer(text) if m[0].lower() not in shown), "")):
        return f"names a method ({named})"
    return None
