"""Squares for a writer: which images stand in each, and how many rows of each type it gives.

A grid asks each of its latent queries about several safe images of one kind of subject, since a dataset has
more SSU rows than SSS neighbours for them:

    safe images A:     latent x images -> SSU   neutral, one an image -> SSS   unsafe -> SUU
    safe image B:      latent          -> SSS
    unsafe images U:                            neutral               -> USU   unsafe -> UUU

A plain square is the same without latent queries. Which images stand in a square hangs on their ids alone
and on nothing of another class. Larger quotas in the same proportions add squares and change none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from pipeline.store import sha256_text
from pipeline.synthesize.matching import KnownImage, bare
from schemas.errors import InputError
from schemas.taxonomy import PairType

__all__ = ["GridSquare", "Slot", "check_quota", "grid_squares", "slots"]

GRIDS = ((1, 1), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4))
"""Latent queries and images of a grid; the first whose SSS rows are not too many is taken."""
ROOM = 0.9
"""The share of a class's SSS rows that grids may take; the others are neutral queries for USU rows."""
SLACK = 1.08
"""SSU rows that grids have places for, for each that is wanted."""
SAFE, UNSAFE = 4, 8
"""Images that a square takes of each side."""
LENT = 2
"""Safe images of other kinds that latent queries are harmless about."""
QUERIES = 4
"""Unsafe queries of a square, each asked of several images."""
KINDS: tuple[PairType, ...] = ("SSU", "SUU", "USU", "UUU")


@dataclass(frozen=True, slots=True)
class GridSquare:
    """What one call to a writer is about.

    Attributes:
        class_name: whose harm it shows.
        split: the side of its images.
        rank: squares of a class and side, from 0; those from `wanted` on are surplus.
        turn: how often its safe images have stood in a square of this kind before.
        surplus: whether it is drafted for rows that the labels take.
        a: safe images of one kind of subject.
        b: safe images of other kinds, the second in reserve; none in a plain square.
        u: unsafe images.
        latent: queries that are harmless as text and harmful about A; one more is asked for, in reserve.
        neutral: queries that are harmless about A.
        unsafe: queries that are harmful as text.
        rows: how many rows of SSU, SUU, USU and UUU are wanted of it.
    """

    class_name: str
    split: str
    rank: int
    turn: int
    surplus: bool
    a: tuple[KnownImage, ...]
    b: tuple[KnownImage, ...]
    u: tuple[KnownImage, ...]
    latent: int
    neutral: int
    unsafe: int
    rows: Mapping[PairType, int]

    @property
    def id(self) -> str:
        """Of what it is about."""
        images = [*self.a, *self.b, *self.u]
        said = f"{self.class_name}:{self.turn}:{self.latent}:{self.neutral}:{self.unsafe}"
        return sha256_text(":".join([said, *(image.image_id for image in images)]))[:16]

    def asked(self) -> tuple[tuple[str, int], ...]:
        """How many queries of each kind are asked for."""
        return ("latent", self.latent + bool(self.latent)), ("neutral", self.neutral), ("unsafe", self.unsafe)


@dataclass(frozen=True, slots=True)
class Slot:
    """A row that a square can give: one of its queries about one of its images.

    Attributes:
        type: what it is meant to be.
        kind: which list of queries.
        query: its place there.
        image: what it asks about.
        role: of the image in the square.
        spare: it is there for rows that the labels take.
    """

    type: PairType
    kind: str
    query: int
    image: KnownImage
    role: str
    spare: bool


def grid_squares(
    class_name: str,
    split: str,
    wanted: Mapping[PairType, int],
    images: Sequence[KnownImage],
    surplus: float,
    lent: Sequence[KnownImage] = (),
) -> list[GridSquare]:
    """The squares that fill the cells of one class and side, and surplus ones.

    Args:
        class_name: the class.
        split: the side.
        wanted: rows of each type.
        images: the accepted images of the class on that side.
        surplus: squares drafted for each square wanted, at least 1.
        lent: safe images of other classes on that side, for B where the class has but one kind of thing.

    Returns:
        Grids, then plain squares; none where the class wants nothing or has no images for it. Where so few
        SSS rows are wanted that others would lack a neighbour, there are more of them.
    """
    safe, unsafe = _ordered(images, safe=True), _ordered(images, safe=False)
    x, y, grids = _grid(wanted)
    if not safe:
        return []
    alike = _alike(safe, y, grids)
    if len(alike[0]) < y:
        y = len(alike[0])
        grids = math.ceil(wanted["SSU"] / (x * y)) if x else 0
    if not any(_others(a, safe, lent, 0) for a in alike):
        # Nothing that latent queries are harmless about: the other rows need none.
        x, y, grids = 0, 1, 0
    asked, plain = _plain(wanted, x, y, grids)
    unsafe_queries = QUERIES if wanted["SUU"] or wanted["UUU"] else 0
    found: list[GridSquare] = []
    weights = [y] * grids + [1] * plain
    shares = {
        "SSU": _shared(wanted["SSU"], [x * y] * grids + [0] * plain),
        "SUU": _shared(wanted["SUU"], weights, SAFE * unsafe_queries),
        "USU": _shared(wanted["USU"] if unsafe else 0, [y] * grids + [1] * asked + [0] * (plain - asked)),
        "UUU": _shared(wanted["UUU"] if unsafe else 0, weights, UNSAFE * unsafe_queries),
    }
    for n in range(math.ceil(grids * surplus) + math.ceil(plain * surplus)):
        # Surplus squares come last, whatever their kind.
        is_grid, place = _nth(n, grids, plain, surplus)
        extra = n >= grids + plain
        rows = {kind: 0 if extra else shares[kind][n] for kind in KINDS}
        step_a, step_u = _steps(wanted, x, y, y if is_grid else 1)
        if is_grid:
            # The same words ask for the same of things of one kind.
            turn, start = divmod(place, len(alike))
            a = alike[start]
            b = _others(a, safe, lent, place * step_a)
            a = (*a, *islice((i for i in _block(safe, place * step_a, SAFE) if i not in a), SAFE - len(a)))
            u = _block(unsafe, place * step_u, UNSAFE)
        else:
            # From the other end, so that the grids that a larger quota brings change none of these.
            turn, a = place * step_a // len(safe), _block(safe[::-1], place * step_a, SAFE)
            b, u = (), _block(unsafe[::-1], place * step_u, UNSAFE)
        if is_grid and not b:
            continue
        queries = (x, y) if is_grid else (0, int(place < asked or extra))
        found.append(
            GridSquare(
                class_name,
                split,
                n,
                turn,
                extra,
                a,
                b,
                u,
                *queries,
                unsafe_queries,
                rows,
            )
        )
    return found


def slots(square: GridSquare) -> Iterator[Slot]:
    """Every row that a square can give, type by type: first those that are wanted of it, then spares."""
    a = square.a[: max(1, square.neutral)]
    all_spare = square.surplus
    latent = dict(square.asked())["latent"]
    for n, image in enumerate(square.b):
        for query in range(latent):
            yield Slot(
                "SSS", "latent", query, image, "b_latent", all_spare or n > 0 or query >= square.latent
            )
    for n, image in enumerate(a[: square.neutral]):
        yield Slot("SSS", "neutral", n, image, "a_neutral", all_spare)
    # Another query for each image, and another image for each query, should the labels take the first.
    for n in range(square.neutral):
        image = square.a[(n + 1) % len(square.a)]
        if image != square.a[n]:
            yield Slot("SSS", "neutral", n, image, "a_neutral", True)
    pairs = {
        "SSU": chain(
            _crossed(a, square.latent), ((image, n) for n in range(square.latent, latent) for image in a)
        ),
        "SUU": _crossed(square.a, square.unsafe),
        "USU": _crossed(square.u, square.neutral),
        "UUU": _crossed(square.u, square.unsafe),
    }
    roles = {"SSU": "a_latent", "SUU": "a_unsafe", "USU": "u_neutral", "UUU": "u_unsafe"}
    lists = {"SSU": "latent", "SUU": "unsafe", "USU": "neutral", "UUU": "unsafe"}
    for kind in KINDS:
        given = square.rows[kind]
        # A few more than are wanted: labels take some.
        most = len(a) * latent if kind == "SSU" else given + max(2, given // 2)
        for n, (image, query) in enumerate(pairs[kind]):
            if n >= most:
                break
            yield Slot(kind, lists[kind], query, image, roles[kind], all_spare or n >= given)


def check_quota(class_name: str, wanted: Mapping[PairType, int]) -> None:
    """See that a class wants enough SSS rows for the neighbours of the others.

    Raises:
        InputError: naming what to raise.
    """
    x, y, grids = _grid(wanted)
    latent, neutral = x * grids, max(y * grids, math.ceil(wanted["USU"] / UNSAFE))
    if wanted["SSS"] < latent + neutral:
        raise InputError(
            f"quotas: {class_name}: {wanted['SSU']} SSU and {wanted['USU']} USU rows need at least "
            f"{latent + neutral} SSS rows as neighbours, not {wanted['SSS']}; raise SSS or lower them"
        )


def _grid(wanted: Mapping[PairType, int]) -> tuple[int, int, int]:
    """Latent queries and images of a grid, and how many grids the SSU rows take."""
    ssu, sss, usu = wanted["SSU"], wanted["SSS"], wanted["USU"]
    if not ssu:
        return 0, 1, 0
    # A few rows more than are wanted: the labels take some.
    for room, slack in ((ROOM, SLACK), (1.0, SLACK), (1.0, 1.0)):
        for x, y in GRIDS:
            rows = (
                ssu * slack * (x + y) / (x * y)
            )  # not rounded, so that twice the quotas make the same grids
            grids = math.ceil(ssu * slack / (x * y))
            if rows <= sss * room and grids * (x + y) <= sss and usu <= UNSAFE * (sss - x * grids):
                return x, y, grids
    x, y = next(((x, y) for x, y in GRIDS if x * y >= ssu), GRIDS[-1])
    return x, y, math.ceil(ssu / (x * y))


def _plain(wanted: Mapping[PairType, int], x: int, y: int, grids: int) -> tuple[int, int]:
    """Plain squares with a neutral query, one for each SSS row that grids leave; and how many there are.

    Those without one are there where unsafe queries need them.
    """
    left = max(0, wanted["SSS"] - grids * (x + y), math.ceil(wanted["USU"] / UNSAFE) - grids * y)
    places = max(wanted["SUU"] / (SAFE * QUERIES), wanted["UUU"] / (UNSAFE * QUERIES))
    return left, max(left, math.ceil(places) - grids)


def _nth(n: int, grids: int, plain: int, surplus: float) -> tuple[bool, int]:
    """Whether the n-th square is a grid, and its place among its kind: wanted ones, then surplus ones."""
    if n < grids + plain:
        return (True, n) if n < grids else (False, n - grids)
    n -= grids + plain
    more = math.ceil(grids * surplus) - grids
    return (True, grids + n) if n < more else (False, plain + n - more)


def _steps(wanted: Mapping[PairType, int], x: int, y: int, weight: int) -> tuple[int, int]:
    """How far on the next square of a kind begins, among safe and unsafe images: as many as one uses.

    It hangs on the proportions of the quotas, so no number of squares is rounded here.
    """
    grids = wanted["SSU"] * SLACK / (x * y) if x else 0.0
    every = max(1.0, y * grids + max(0.0, wanted["SSS"] - grids * (x + y)))
    safe = max(weight, round(weight * wanted["SUU"] / every))
    unsafe = round(weight * max(wanted["USU"], wanted["UUU"]) / every)
    return min(safe, SAFE), max(1, min(unsafe, UNSAFE))


def _alike(safe: Sequence[KnownImage], size: int, grids: int) -> list[tuple[KnownImage, ...]]:
    """Groups of `size` images of one kind.

    Where no kind has so many, the largest there are; where too few have, so that grids would ask about a few
    images again and again, neighbours in the order of kinds.
    """
    by_kind: dict[str, list[KnownImage]] = {}
    for image in safe:
        by_kind.setdefault(_kind(image), []).append(image)
    size = min(size, max(len(members) for members in by_kind.values()))
    found = [
        tuple(members[n : n + size])
        for members in by_kind.values()
        for n in range(0, len(members) - size + 1, size)
    ]
    if len(found) * size >= min(len(safe) // 2, grids * size):
        return found
    return [tuple(safe[n : n + size]) for n in range(0, len(safe) - size + 1, size)]


def _others(
    a: Sequence[KnownImage], safe: Sequence[KnownImage], lent: Sequence[KnownImage], start: int
) -> tuple[KnownImage, ...]:
    """Safe images of other kinds: the class's own, or else such as it is lent."""
    kinds = {_kind(image) for image in a}
    own = (safe[(start + len(safe) // 2 + i) % len(safe)] for i in range(len(safe)))
    borrowed = (lent[(start + i) % len(lent)] for i in range(len(lent)))
    return tuple(islice((image for image in chain(own, borrowed) if _kind(image) not in kinds), LENT))


def _block(images: Sequence[KnownImage], start: int, size: int) -> tuple[KnownImage, ...]:
    """`size` images from a place on, around the end, each once."""
    return tuple(images[(start + i) % len(images)] for i in range(min(size, len(images))))


def _ordered(images: Sequence[KnownImage], *, safe: bool) -> list[KnownImage]:
    """One side's images, those of one kind of subject together; both in the order of a hash."""
    return sorted(
        (image for image in images if image.safe == safe),
        key=lambda image: (sha256_text(_kind(image)), image.image_id),
    )


def _kind(image: KnownImage) -> str:
    return image.objects[0] if image.objects else bare(image.subject)


def _shared(total: int, weights: Sequence[int], most: int | None = None) -> list[int]:
    """A number divided by weights into whole ones, by the largest remainder; none above `most`."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    exact = [total * weight / whole for weight in weights]
    parts = [int(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (parts[i] - exact[i], i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    if most is not None and max(parts) > most:
        over = sum(max(0, part - most) for part in parts)
        parts = [min(part, most) for part in parts]
        for i in sorted(range(len(parts)), key=lambda i: (parts[i], i)):
            step = min(over, most - parts[i])
            parts[i] += step
            over -= step
    return parts


def _crossed(images: Sequence[KnownImage], queries: int) -> Iterator[tuple[KnownImage, int]]:
    """Every image with every query, so that both change from one row to the next."""
    for n in range(len(images) * queries):
        i = n % len(images)
        yield images[i], (n // len(images) + i) % queries
