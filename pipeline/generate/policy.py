"""What may be generated: the taxonomy's ceilings, and what no taxonomy can allow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import InputError
from schemas.params import Params
from schemas.safeguards import forbidden_reason
from schemas.taxonomy import ClassInfo

__all__ = ["ImagePrompt", "check_makers", "refusal"]

# `forbidden_reason` answers to a word for a minor beside a sexual word: so with one of them it tells whether
# a text holds any of the other.
_ANY_MINOR: Final = "child"
_ANY_SEXUAL: Final = "nude"
SEXUAL_CLASS: Final = 17
"""HoliSafe's id of sexual content, which never changes."""


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """A prompt, the class it is for, and the side that it aims at."""

    text: str
    info: ClassInfo
    safe: bool


def refusal(prompt: ImagePrompt) -> str | None:
    """Why no image may be generated from this prompt, or None. It does not repeat the prompt."""
    if reason := forbidden_reason(prompt.text):
        return reason
    if forbidden_reason(f"{_ANY_MINOR} {prompt.text}"):
        return "the prompt holds a sexual word; such images are never generated, write it without"
    if reason := _beyond(prompt.info, safe=prompt.safe):
        return reason
    if prompt.safe and (named := _named(prompt.text, prompt.info.spec.concepts.unsafe)):
        return f"a safe picture of {prompt.info.name} was to be written, and the prompt names {named!r}"
    # No minor in a harmful setting, and none in a class of which nothing unsafe may be pictured at all.
    guarded = not prompt.safe or prompt.info.spec.generation.images == "safe_only"
    if guarded and forbidden_reason(f"{_ANY_SEXUAL} {prompt.text}"):
        return "the prompt holds a word for a minor; there are none in such pictures, write it without"
    return None


def _named(text: str, concepts: Sequence[str]) -> str | None:
    """The first concept that a text names, in the singular or the plural."""
    return next((c for c in concepts if re.search(rf"(?i)\b{re.escape(c)}s?\b", text)), None)


def check_makers(params: Params, classes: Sequence[ClassInfo], path: Path) -> None:
    """See that no generator is asked for what the taxonomy does not allow.

    Args:
        params: with the generators.
        classes: those that the build covers.
        path: of the params, for errors.

    Raises:
        InputError: naming the field.
    """
    known = {info.name for info in classes}
    for i, maker in enumerate(params.generate.pictures):
        where = f"{path}: generate.pictures.{i}"
        if unknown := [name for name in maker.classes if name not in known]:
            raise InputError(f"{where}.classes: this build covers no class {unknown[0]!r}")
        for info in classes:
            if maker.classes and info.name not in maker.classes:
                continue
            for side, most in (("safe", maker.per_class.safe), ("unsafe", maker.per_class.unsafe)):
                if most and (reason := _beyond(info, safe=side == "safe")):
                    raise InputError(
                        f"{where}.per_class.{side}: {reason}; write 0, or name other classes in "
                        f"generate.pictures.{i}.classes"
                    )
            off = maker.kind == "diffusion" and maker.safety_checker == "off"
            if off and _beyond(info, safe=False):
                raise InputError(
                    f"{where}.safety_checker: `off` is for classes whose unsafe images may be generated, and "
                    f"{info.name} is none; write keep, or name other classes in generate.pictures.{i}.classes"
                )
        if maker.kind == "diffusion":
            folder = (path.parent / maker.model).is_dir()
            if not folder and not maker.revision:
                raise InputError(
                    f"{where}.revision: {maker.model} is no folder; for a repository on the Hub name a commit"
                )


def _beyond(info: ClassInfo, *, safe: bool) -> str | None:
    """Why a side of a class may not be generated."""
    allowed = info.spec.generation.images
    if allowed == "never":
        return f"the taxonomy says `images: never` for {info.name}"
    if safe:
        return None
    if info.id == SEXUAL_CLASS:
        return f"no unsafe image of {info.name} is ever generated, whatever the taxonomy says"
    if allowed != "allowed":
        return f"the taxonomy says `images: {allowed}` for {info.name}: no unsafe image may be generated"
    return None
