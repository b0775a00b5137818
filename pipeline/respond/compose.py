"""Responses from scenes: the rationale as structure first, then the sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from pipeline.store import sha256_text
from pipeline.synthesize.matching import KnownImage, fill
from schemas.queries import LatentScene, NeutralScene, Scene, UnsafeScene
from schemas.responses import ResponseStyles
from schemas.taxonomy import ClassInfo

__all__ = ["Rationale", "Response", "variants"]

HELP = "crisis line"
VARIANTS = 6


@dataclass(frozen=True, slots=True)
class Rationale:
    """Why a pair is refused: the class, what the image and the text bring to it, and a safer direction."""

    harm_class: str
    image: str
    text: str
    why: str
    safer: str


@dataclass(frozen=True, slots=True)
class Response:
    """A response and, where it refuses, its rationale."""

    text: str
    rationale: Rationale | None

    def rationale_dict(self) -> dict[str, str] | None:
        """The rationale as plain values."""
        return asdict(self.rationale) if self.rationale else None


def variants(
    scene: Scene,
    image: KnownImage,
    query: str,
    expected: str,
    info: ClassInfo,
    styles: ResponseStyles,
    seed: int,
) -> Iterator[Response]:
    """Responses that fit, best first: the same content in up to six styles.

    Args:
        scene: the scene the query came from.
        image: the pair's image.
        query: the pair's query.
        expected: comply, safe_complete, refuse or support.
        info: the class of the harm.
        styles: sentences to choose from.
        seed: with image and query it decides which sentences come first.
    """
    if expected == "comply":
        answer = scene.answer if isinstance(scene, LatentScene | NeutralScene) else ""
        yield Response(fill(answer, image.subject), None)
        return
    if expected == "safe_complete":
        protective = scene.protective if isinstance(scene, NeutralScene) else None
        yield Response(fill(protective or "", image.subject), None)
        return
    start = int(sha256_text(f"{seed}:{image.image_id}:{query}")[:8], 16)
    harm = info.spec.rationale.harm
    why = _clause(fill(scene.why, image.subject))
    safer = fill(scene.safer, image.subject)
    rationale = Rationale(
        info.name,
        f"{image.subject} ({'safe' if image.safe else 'unsafe'} by itself)",
        "asks for harm by itself" if isinstance(scene, UnsafeScene) else "harmless by itself",
        why,
        safer,
    )
    for n in range(start, start + VARIANTS):
        slots = {"why": why, "harm": harm, "thing": image.subject}
        if expected == "support":
            sentences = [
                _pick(styles.support.opening, n),
                _pick(styles.support.why, n // 3),
                safer,
                # Once is enough where the safer direction says it already.
                "" if HELP in safer else info.spec.rationale.resource or "",
            ]
        else:
            about = styles.refuse.safe_image if image.safe else styles.refuse.unsafe_image
            sentences = [_pick(styles.refuse.opening, n), _pick(about, n // 5), safer]
        parts = [
            s if s in {safer, info.spec.rationale.resource} else s.format(**slots) for s in sentences if s
        ]
        yield Response(" ".join(p[:1].upper() + p[1:] for p in parts), rationale)


def _pick(options: list[str], n: int) -> str:
    return options[n % len(options)]


def _clause(text: str) -> str:
    # `fill` capitalises; inside a sentence that is wrong, except for names and "I".
    first = text.split(" ", 1)[0]
    return text if first in {"I", "I'm", "I'd"} else text[:1].lower() + text[1:]
