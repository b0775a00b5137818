"""Guards trained in several ways: equal in rows, tested on what none saw, told with what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.anyset import open_anyset
from pipeline.audit.pictures import Looks, look_at
from pipeline.prove import (
    Encoded,
    arms_of,
    markdown,
    prove,
    read_proof,
    rows_hash,
    train_guard,
    write_proof,
)
from pipeline.prove.arms import draw
from pipeline.prove.proof import Figure
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.images import encoded as bytes_of
from tests.images import picture

WIDTH = 16
KINDS = ("SSS", "SSU", "USU", "UUU", "SUU")


def embedded(folder: Path, name: str, n: int, seed: int, first_image: int = 0, split: str = "") -> Encoded:
    """Pairs that are unsafe exactly where the signs of image and query differ: neither tells it alone."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows, images, texts = [], [], []
    for k in range(n):
        file = f"{first_image + k // 2}.png"
        if not (folder / "images" / file).exists():
            (folder / "images" / file).write_bytes(
                bytes_of(picture(48, 48, seed=first_image + k // 2), "PNG")
            )
        image_sign, text_sign = (1 if (k // 2) % 2 else -1), (1 if k % 2 else -1)
        unsafe = image_sign != text_sign
        rows.append(
            {
                "id": k, "image": file, "query": f"query {seed} {k}",
                "type": KINDS[1 + k % 4] if unsafe else "SSS", "category": "hate",
                "subcategory": "race", "image_safe": True, "image_safety_label": 0,
                "contrast_square": f"s{k // 2}", **({"split": split} if split else {}),
            }
        )  # fmt: skip
        noise = random.normal(0, 0.1, (2, WIDTH))
        images.append(np.eye(WIDTH)[0] * image_sign + noise[0])
        texts.append(np.eye(WIDTH)[0] * text_sign + noise[1])
    (folder / "holisafe_bench.json").write_text(json.dumps(rows))
    found = open_anyset(str(folder))

    def unit(some: list[Any]) -> Any:
        array = np.array(some, np.float32)
        return array / np.linalg.norm(array, axis=1, keepdims=True)

    kinds = found.rows["type"].str.endswith("U").to_numpy(bool).copy()
    return Encoded(name, found, found.rows, unit(images), unit(texts), kinds, look_at(found, Silent()), 0)


def test_a_guard_learns_what_an_image_makes_of_a_query_and_needs_the_image_for_it(tmp_path: Path) -> None:
    ours = embedded(tmp_path / "a", "ours", 160, seed=1)
    other = embedded(tmp_path / "b", "other", 80, seed=2, first_image=1000)
    for seed in (0, 1):
        with_image = train_guard(ours.image, ours.text, ours.unsafe, seed)
        blind = train_guard(ours.image, ours.text, ours.unsafe, seed, sees_image=False)
        right = (with_image(other.image, other.text) > 0.5) == other.unsafe
        guessed = (blind(other.image, other.text) > 0.5) == other.unsafe
        assert right.mean() > 0.8
        assert guessed.mean() < 0.7
    again = train_guard(ours.image, ours.text, ours.unsafe, 1)
    assert np.array_equal(again(other.image, other.text), with_image(other.image, other.text))


def test_all_arms_have_equally_many_rows_and_the_table_says_which_is_behind(tmp_path: Path) -> None:
    ours = embedded(tmp_path / "a", "ours", 160, seed=1, split="train")
    tested = embedded(tmp_path / "b", "tested", 80, seed=2, first_image=1000)
    arms = arms_of(ours)
    assert [arm.name for arm in arms] == ["ours", "ours, text only", "ours, without contrast squares"]
    proof = prove(arms, [ours, tested], Silent())
    assert proof.rows == 80  # squares of two rows, one of each
    assert [(t.name, sum(t.rows.values())) for t in proof.tested] == [("ours", 0), ("tested", 80)]
    first, blind, _ = proof.cells
    assert (first.arm, first.less_than_first.value) == ("ours", None)
    assert first.figures["AUC"].value is not None
    assert first.figures["AUC"].value > 0.8
    assert blind.less_than_first.low is not None
    assert blind.less_than_first.low > 0.1
    page = markdown(proof)
    assert "| ours, text only |" in page
    assert "Tested on **tested**" in page


def test_of_a_square_one_row_at_most_is_drawn_and_both_labels_are_there(tmp_path: Path) -> None:
    arm = arms_of(embedded(tmp_path / "a", "ours", 160, seed=1))[2]
    for seed in range(5):
        chosen = draw(arm, 60, seed)
        squares = arm.source.rows["contrast_square"].to_numpy()[chosen]
        assert len(chosen) == len(set(squares)) == 60
        assert 2 <= arm.source.unsafe[chosen].sum() <= 58
    assert not np.array_equal(draw(arm, 60, 0), draw(arm, 60, 1))
    rare = arms_of(embedded(tmp_path / "b", "rare", 90, seed=3))[0]
    rare.source.unsafe[:] = False
    rare.source.unsafe[-2:] = True
    assert all(rare.source.unsafe[draw(rare, 40, seed)].sum() == 2 for seed in range(5))


def test_rows_whose_picture_is_trained_on_are_not_tested(tmp_path: Path) -> None:
    ours = embedded(tmp_path / "a", "ours", 100, seed=1)
    # Pictures 40 to 49 are the last ten of ours, too.
    tested = embedded(tmp_path / "b", "tested", 80, seed=2, first_image=40)
    proof = prove(arms_of(ours), [tested], Silent(), seeds=(0,))
    assert (sum(proof.tested[0].rows.values()), proof.tested[0].copies) == (60, 20)
    with pytest.raises(InputError, match="no row to test on; name another dataset with --on"):
        prove(arms_of(ours), [ours], Silent(), seeds=(0,))


def test_copies_of_a_picture_are_one_observation(tmp_path: Path) -> None:
    ours = embedded(tmp_path / "a", "ours", 160, seed=1)
    tested = embedded(tmp_path / "b", "tested", 80, seed=2, first_image=1000)
    twice = copied(tmp_path / "b", tested)
    random = np.random.default_rng(0)
    seen = {key: replace(look, hash=random.bytes(32)) for key, look in twice.looks.seen.items()}
    unlike = replace(twice, looks=Looks(seen, {}))
    named = replace(
        unlike, rows=unlike.rows.assign(leak_group=unlike.rows["image"].str.removeprefix("copy-"))
    )
    proof = prove(arms_of(ours)[:1], [tested, twice, named, unlike], Silent(), seeds=(0,))
    once, again, said, apart = (cell.figures["AUC"] for cell in proof.cells)
    assert sum(proof.tested[1].rows.values()) == 160
    assert again == said == once
    assert width(apart) < 0.85 * width(once)


def copied(folder: Path, tested: Encoded) -> Encoded:
    """Every row a second time, with a copy of its picture under another name."""
    rows = json.loads((folder / "holisafe_bench.json").read_text())
    for name in {row["image"] for row in rows}:
        (folder / "images" / f"copy-{name}").write_bytes((folder / "images" / name).read_bytes())
    again = [row | {"id": row["id"] + len(rows), "image": f"copy-{row['image']}"} for row in rows]
    (folder / "holisafe_bench.json").write_text(json.dumps(rows + again))
    found = open_anyset(str(folder))
    image, text, unsafe = (np.concatenate([a, a]) for a in (tested.image, tested.text, tested.unsafe))
    return Encoded("copied", found, found.rows, image, text, unsafe, look_at(found, Silent()), 0)


def width(figure: Figure) -> float:
    assert figure.low is not None
    assert figure.high is not None
    return figure.high - figure.low


def test_too_little_to_learn_from_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"30 rows to train on \(few\); a guard needs 40"):
        arms_of(embedded(tmp_path / "a", "few", 30, seed=1))
    one = embedded(tmp_path / "b", "one", 100, seed=1)
    one.unsafe[:] = True
    with pytest.raises(InputError, match="all rows are unsafe"):
        arms_of(one)


def test_a_proof_is_read_as_it_was_written(tmp_path: Path) -> None:
    ours = embedded(tmp_path / "a", "ours|a", 120, seed=1)
    proof = prove(arms_of(ours), [embedded(tmp_path / "b", "tested", 60, 2, 500)], Silent(), seeds=(0, 1))
    write_proof(proof, tmp_path / "out")
    assert read_proof(tmp_path / "out") == proof
    assert proof.dataset == rows_hash(zip(ours.rows["id"][::-1], ours.rows["type"][::-1], strict=True))
    assert "ours\\|a" in (tmp_path / "out" / "proof.md").read_text()
    (tmp_path / "out" / "proof.json").write_text("{}")
    with pytest.raises(InputError, match=r"proof\.json: not what `holisafe prove` writes"):
        read_proof(tmp_path / "out")
    with pytest.raises(InputError, match="name a folder that `holisafe prove` wrote"):
        read_proof(tmp_path)
