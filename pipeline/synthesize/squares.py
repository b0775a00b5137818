"""Contrast squares: three images and three queries of one class on one side of the split.

    safe image A:   neutral query -> SSS   latent query -> SSU   unsafe query -> SUU
    safe image B:                          latent query -> SSS
    unsafe image U: neutral query -> USU                         unsafe query -> UUU

So every SSU row has both SSS neighbours, every USU row has one, and the query alone does not tell an SSS
row from an SSU or USU row. Each square also has spares: other pairs that would do as an SSS neighbour, for
label_pairs to try where the labels took the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pipeline.cells import Cell
from pipeline.store import sha256_text
from pipeline.synthesize.matching import KnownImage, fill
from schemas.queries import ClassScenes, LatentScene, NeutralScene, Scene, UnsafeScene
from schemas.taxonomy import ClassInfo, PairType

__all__ = ["Candidate", "assign_scene_sides", "draft_squares", "pair_id_of", "row_id_of", "squares_wanted"]

SPARES = 3
"""Spare neighbours of each kind a square is drafted with."""
_ROW_ID_BITS = 53
S = TypeVar("S", NeutralScene, UnsafeScene)


def pair_id_of(image_id: str, query: str, lang: str = "en") -> str:
    """What an image with a query is called; a row of the dataset has it as `query_id`."""
    return sha256_text(f"{image_id}\n{query}\n{lang}")


def row_id_of(pair_id: str) -> int:
    """What a pair's row is called in the dataset: a number that every JSON reader holds exactly."""
    return int(pair_id, 16) >> (256 - _ROW_ID_BITS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair as drafted: its type is an intention until label_pairs has seen it."""

    image_id: str
    query: str
    scene: str
    square: str
    rank: int
    role: str
    harm_class: str
    split: str
    intended_type: PairType
    expected: str
    spare: bool = False
    writer: str = ""

    @property
    def query_id(self) -> str:
        """Of image, text and language."""
        return pair_id_of(self.image_id, self.query)

    @property
    def pair_id(self) -> str:
        """The same as the query's: a pair is an image with a query."""
        return self.query_id


@dataclass
class _Uses:
    """How often each scene and image was drafted, so that the least used comes next."""

    scenes: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    pairs: set[tuple[str, str]] = field(default_factory=set)

    def cost(self, seed: int, scene: Scene, *images: KnownImage) -> tuple[int, int, str]:
        """Sort key: least used first, ties by a seeded hash."""
        tie = sha256_text(f"{seed}:{scene.id}:" + ":".join(i.image_id for i in images))
        return self.scenes[scene.id], sum(self.images[i.image_id] for i in images), tie

    def take(self, scene: Scene, *images: KnownImage) -> None:
        self.scenes[scene.id] += 1
        for image in images:
            self.images[image.image_id] += 1
            self.pairs.add((image.image_id, scene.id))

    def fresh(self, scene: Scene, *images: KnownImage) -> bool:
        return all((image.image_id, scene.id) not in self.pairs for image in images)


def squares_wanted(wanted: Mapping[Cell, int]) -> dict[tuple[str, str], int]:
    """Squares by class and side: as many as the largest of the cells of the four unsafe types wants."""
    squares: dict[tuple[str, str], int] = {}
    for cell, number in wanted.items():
        place = cell.class_name, cell.split
        squares[place] = max(squares.get(place, 0), number if cell.type != "SSS" else 0)
    return squares


def assign_scene_sides(
    scenes: ClassScenes, images: Mapping[str, Sequence[KnownImage]], known: dict[str, str], test_share: float
) -> dict[str, str]:
    """Put each scene of a class on one side, so that no template is seen in training and tested.

    Sides in `known` stay. Each kind gives the test side its share, at least one scene where it has two,
    preferring those that the test side has most images for, ties by hash.

    Args:
        scenes: of one class.
        images: accepted images of every class by side.
        known: sides decided earlier, by scene id; new ones are added to it.
        test_share: the test side's share of the scenes.
    """
    for kind in (scenes.latent, scenes.neutral, scenes.unsafe):
        listed: Sequence[Scene] = kind
        target = max(1, round(test_share * len(listed))) if len(listed) > 1 else 0
        short = target - sum(known.get(s.id) == "test" for s in listed)
        open_scenes = sorted(
            (s for s in listed if s.id not in known),
            key=lambda s: (-_matches(s, images["test"]), sha256_text(s.id)),
        )
        for i, scene in enumerate(open_scenes):
            known[scene.id] = "test" if i < short else "train"
    return known


def _matches(scene: Scene, images: Sequence[KnownImage]) -> int:
    own = scene.id.split(".")[0]
    a = sum(i.safe and i.class_name == own and i.suits(scene.image) for i in images)
    if isinstance(scene, LatentScene):
        b = sum(i.safe and i.shows(scene.other) and not i.shows(scene.image) for i in images)
        return min(a, b)
    return a + sum(not i.safe and i.class_name == own and i.suits(scene.unsafe_image) for i in images)


def draft_squares(
    info: ClassInfo,
    scenes: ClassScenes,
    images: Sequence[KnownImage],
    count: int,
    seed: int,
) -> Iterator[Candidate]:
    """Draft up to `count` squares of one class from scenes and images of one side.

    Args:
        info: the class.
        scenes: its scenes on this side.
        images: every accepted image on this side; B images may be of any class of HoliSafe's, or that is
            not younger: those of a class that is added later must not change these squares.
        count: squares to draft; fewer come where images or scenes run out.
        seed: for ties.

    Yields:
        The candidates square by square, each with its spares last; a part that no image or scene can fill is
        left out.
    """
    own_safe = [i for i in images if i.safe and i.class_name == info.name]
    own_unsafe = [i for i in images if not i.safe and i.class_name == info.name]
    any_safe = [i for i in images if i.safe]
    uses = _Uses()
    for rank in range(count):
        latent = min(
            (
                (scene, a, b)
                for scene in scenes.latent
                for a in own_safe
                if a.shows(scene.image) and uses.fresh(scene, a)
                for b in any_safe
                if b.shows(scene.other) and not b.shows(scene.image) and uses.fresh(scene, b)
            ),
            key=lambda option: uses.cost(seed, *option),
            default=None,
        )
        if latent:
            uses.take(*latent)
        fixed_a = latent[1] if latent else None
        neutral = _choose(scenes.neutral, own_safe, own_unsafe, fixed_a, None, uses, seed)
        anchor = fixed_a or (neutral[1] if neutral else None)
        twin = _twin(neutral, own_safe, uses, seed)
        unsafe = _choose(scenes.unsafe, own_safe, own_unsafe, anchor, neutral and neutral[2], uses, seed)
        square = _Square(info, rank, latent, neutral, twin, unsafe)
        yield from square.rows()

        def suited(scene: NeutralScene, image: KnownImage) -> bool:
            return image.suits(scene.image) and uses.fresh(scene, image)

        def rank_of(scene: Scene, image: KnownImage) -> tuple[int, int, str]:
            return uses.cost(seed, scene, image)

        spares: list[tuple[Scene, KnownImage, str]] = []
        if latent:
            scene, a, _ = latent
            others = [i for i in any_safe if i.shows(scene.other) and not i.shows(scene.image)]
            others = sorted((i for i in others if uses.fresh(scene, i)), key=lambda i: rank_of(scene, i))
            spares += [(scene, image, "b_latent") for image in others[:SPARES]]
            asked = sorted((s for s in scenes.neutral if suited(s, a)), key=lambda s: rank_of(s, a))
            spares += [(other, a, "a_neutral") for other in asked[:SPARES]]
        if neutral and neutral[2]:
            again = neutral[0]
            images_a = sorted((i for i in own_safe if suited(again, i)), key=lambda i: rank_of(again, i))
            spares += [(again, image, "a_neutral") for image in images_a[:SPARES]]
        yield from square.spares(spares)


def _choose(
    kind: Sequence[S],
    own_safe: Sequence[KnownImage],
    own_unsafe: Sequence[KnownImage],
    fixed_a: KnownImage | None,
    fixed_u: KnownImage | None,
    uses: _Uses,
    seed: int,
) -> tuple[S, KnownImage | None, KnownImage | None] | None:
    """The least used scene of a kind for a safe and an unsafe image, or for the one there is."""
    safe: Sequence[KnownImage | None] = [fixed_a] if fixed_a else list(own_safe) or [None]
    unsafe: Sequence[KnownImage | None] = [fixed_u] if fixed_u else list(own_unsafe) or [None]
    best = min(
        (
            (scene, a, u)
            for scene in kind
            for a in safe
            if a is None or (a.suits(scene.image) and uses.fresh(scene, a))
            for u in unsafe
            if u is None or (u.suits(scene.unsafe_image) and uses.fresh(scene, u))
        ),
        key=lambda option: uses.cost(seed, option[0], *(i for i in option[1:] if i)),
        default=None,
    )
    if best:
        uses.take(best[0], *(i for i in best[1:] if i))
    return best


def _twin(
    neutral: tuple[NeutralScene, KnownImage | None, KnownImage | None] | None,
    own_safe: Sequence[KnownImage],
    uses: _Uses,
    seed: int,
) -> KnownImage | None:
    """A safe image by the maker of the unsafe one that the same question suits: their looks tell nothing."""
    if not neutral:
        return None
    scene, a, u = neutral
    if not u or (a and a.maker == u.maker):
        return None
    alike = [i for i in own_safe if i.maker == u.maker and i.suits(scene.image) and uses.fresh(scene, i)]
    twin = min(alike, key=lambda i: uses.cost(seed, scene, i), default=None)
    if twin:
        uses.take(scene, twin)
    return twin


@dataclass(frozen=True, slots=True)
class _Square:
    info: ClassInfo
    rank: int
    latent: tuple[LatentScene, KnownImage, KnownImage] | None
    neutral: tuple[NeutralScene, KnownImage | None, KnownImage | None] | None
    twin: KnownImage | None
    unsafe: tuple[UnsafeScene, KnownImage | None, KnownImage | None] | None

    def rows(self) -> Iterator[Candidate]:
        """The candidates of the square, in a fixed order."""
        for scene, image, role, kind, expected in self._parts():
            yield self._candidate(scene, image, role, kind, expected)

    def spares(self, found: Sequence[tuple[Scene, KnownImage, str]]) -> Iterator[Candidate]:
        """Further candidates for an SSS neighbour."""
        for scene, image, role in found:
            yield replace(self._candidate(scene, image, role, "SSS", "comply"), spare=True)

    def _parts(self) -> list[tuple[Scene, KnownImage, str, PairType, str]]:
        parts: list[tuple[Scene, KnownImage, str, PairType, str]] = []
        latent, neutral, unsafe = self.latent, self.neutral, self.unsafe
        if neutral and neutral[1]:
            parts.append((neutral[0], neutral[1], "a_neutral", "SSS", "comply"))
        if neutral and self.twin:
            parts.append((neutral[0], self.twin, "a_neutral", "SSS", "comply"))
        if latent:
            parts.append((latent[0], latent[2], "b_latent", "SSS", "comply"))
            parts.append((latent[0], latent[1], "a_latent", "SSU", latent[0].expected))
        if unsafe and unsafe[1]:
            parts.append((unsafe[0], unsafe[1], "a_unsafe", "SUU", unsafe[0].expected))
        if neutral and neutral[2]:
            parts.append((neutral[0], neutral[2], "u_neutral", "USU", neutral[0].on_unsafe))
        if unsafe and unsafe[2]:
            parts.append((unsafe[0], unsafe[2], "u_unsafe", "UUU", unsafe[0].expected))
        return parts

    def _candidate(
        self, scene: Scene, image: KnownImage, role: str, kind: PairType, expected: str
    ) -> Candidate:
        members = ":".join(f"{scene.id}@{image.image_id}" for scene, image, *_ in self._parts())
        return Candidate(
            image_id=image.image_id,
            query=fill(scene.query, image.subject),
            scene=scene.id,
            square=sha256_text(members)[:16],
            rank=self.rank,
            role=role,
            harm_class=self.info.name,
            split=image.split,
            intended_type=kind,
            expected=expected,
            writer=f"template:{scene.id}",
        )
