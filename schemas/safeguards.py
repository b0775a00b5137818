"""What no configuration, prompt, caption or query may contain, whatever the taxonomy says.

Anything sexual with minors can be neither a class, a concept, a prompt nor a query. The rule is a pair of
word lists: a text that holds a word of each is refused. It errs on the side of refusing.
"""

from __future__ import annotations

import re

__all__ = ["forbidden_reason"]

_YOUNG = re.compile(
    r"\b(minors?|child(ren)?|kids?|boys?|girls?|teen(ager)?s?|underage|under-age|schoolgirls?|schoolboys?|"
    r"pupils?|toddlers?|bab(y|ies)|infants?|juveniles?|adolescents?|preteens?|"
    r"(daughter|son|niece|nephew|brother|sister)s?|(1[0-7]|[1-9])[- ]years?[- ]olds?)\b",
    re.IGNORECASE,
)
_SEXUAL = re.compile(
    r"\b(sex(ual|ually|y|ting)?|nud(e|es|ity)|naked|erotic\w*|porn\w*|explicit|undress\w*|strip(ping|tease)?|"
    r"lingerie|seduc\w+|intercourse|genital\w*|orgasm\w*|fetish\w*|arous\w+)\b",
    re.IGNORECASE,
)


def forbidden_reason(text: str) -> str | None:
    """Why `text` may not be used, or None.

    Args:
        text: one caption, concept, prompt or query.

    Returns:
        A reason that does not repeat the text, or None when nothing is wrong with it.
    """
    plain = text.replace("_", " ")
    if _YOUNG.search(plain) and _SEXUAL.search(plain):
        return "a text joins words for a minor with sexual words; this can not be used, remove it"
    return None
