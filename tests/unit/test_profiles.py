"""Profiles are whole params files; a rehearsal is the paper's size without a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.cells import quotas_of
from pipeline.generate.placeholders import placeholders
from pipeline.profiles import profile_names, use_profile
from pipeline.synthesize.grids import check_quota
from schemas.errors import InputError, load_yaml
from schemas.params import Params, Placeholders
from schemas.taxonomy import PAIR_TYPES, load_taxonomy
from tests.conftest import REPOSITORY

TAXONOMY = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")
PAPER = {
    "hate": (1034, 1201, 682, 884, 454),
    "illegal_activity": (309, 335, 987, 510, 548),
    "self_harm": (479, 501, 177, 206, 153),
    "specialized_advice": (442, 444, 448, 356, 356),
    "violence": (327, 406, 413, 1050, 596),
}
"""Pairs of the paper by category: SSS, SSU, SUU, USU, UUU. Privacy and sexual content have more SSS here."""


def params_of(name: str) -> Params:
    return Params.model_validate(load_yaml(REPOSITORY / "profiles" / f"{name}.yaml"))


def test_what_stands_in_the_repository_is_the_embedded_profile() -> None:
    assert profile_names(REPOSITORY) == ["embedded", "holisafe", "rehearsal"]
    assert (REPOSITORY / "params.yaml").read_text() == (REPOSITORY / "profiles/embedded.yaml").read_text()


@pytest.mark.parametrize("name", profile_names(REPOSITORY))
def test_every_parameter_that_dvc_looks_at_is_written_out(name: str) -> None:
    params = load_yaml(REPOSITORY / "profiles" / f"{name}.yaml")
    looked_at = {
        each for stage in load_yaml(REPOSITORY / "dvc.yaml")["stages"].values() for each in stage["params"]
    }
    assert "annotators.safety_head" in looked_at
    for each in sorted(looked_at):
        inside = params
        for part in each.split("."):
            assert part in inside, each
            inside = inside[part]


@pytest.mark.parametrize("name", ["holisafe", "rehearsal"])
def test_the_quotas_are_the_papers_and_can_be_filled(name: str) -> None:
    params = params_of(name)
    sums: dict[str, list[int]] = {}
    for info in TAXONOMY.classes():
        quota = quotas_of(info, params.quotas, params.quota_scale)
        check_quota(info.name, quota)
        sums.setdefault(info.category, [0] * 5)
        sums[info.category] = [
            a + quota[kind] for a, kind in zip(sums[info.category], PAIR_TYPES, strict=True)
        ]
    assert {name: tuple(sums[name]) for name in PAPER} == PAPER
    assert all(counts[0] > 0 for counts in sums.values())


def test_who_judges_in_the_holisafe_profile_sees_pixels_and_did_not_write() -> None:
    params = params_of("holisafe")
    for question in ("image_safe", "text_safe", "pair_safe", "harm"):
        families = {said.family for said in params.voters(question).values()}
        assert len(families) >= 3
        assert params.endpoints[str(params.synthesize.writer)].family not in families
        assert all(said.sees == "pixels" for said in params.voters(question).values())


def test_a_profile_takes_the_place_of_params_that_hold_no_changes(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "profiles", tmp_path / "profiles")
    assert use_profile(tmp_path, "rehearsal")
    assert not use_profile(tmp_path, "rehearsal")
    assert use_profile(tmp_path, "embedded")
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("seed: 20250604", "seed: 7"))
    with pytest.raises(InputError, match=r"holds changes.*--yes"):
        use_profile(tmp_path, "holisafe")
    assert use_profile(tmp_path, "holisafe", overwrite=True)
    with pytest.raises(InputError, match="no profile 'none'; there are: embedded"):
        use_profile(tmp_path, "none")


def test_cards_are_all_different_and_say_what_they_stand_for() -> None:
    wanted = [Placeholders.model_validate({"per_class": {"safe": 20, "unsafe": 10}})]
    rows = list(placeholders(wanted, list(TAXONOMY.classes()), 1))
    assert len({row["image_id"] for row in rows}) == len(rows) == 19 * 30
    assert len({row["caption"] for row in rows}) == len(rows)
    for row in rows:
        side = "safe" if row["intended_safe"] else "unsafe"
        assert row["caption"].startswith(f"placeholder, {side}: {row['objects'][0]}, card ")
    assert rows == list(placeholders(wanted, list(TAXONOMY.classes()), 1))


def test_cards_are_for_rehearsals_only() -> None:
    data = yaml.safe_load((REPOSITORY / "profiles/embedded.yaml").read_text())
    data["generate"]["placeholders"] = [{"per_class": {"safe": 1, "unsafe": 1}}]
    with pytest.raises(ValueError, match="placeholders: are for rehearsals, and 'local' is not scripted"):
        Params.model_validate(data)


def test_who_wrote_a_query_does_not_judge_it() -> None:
    data = yaml.safe_load((REPOSITORY / "profiles/rehearsal.yaml").read_text())
    data["endpoints"]["judge-a"]["family"] = data["endpoints"]["writer"]["family"]
    with pytest.raises(ValueError, match=r"synthesize.writer: 'writer' would write .* 'judge-a'"):
        Params.model_validate(data)


def test_a_build_without_a_model_that_is_paid_or_served_is_a_demo() -> None:
    data = yaml.safe_load((REPOSITORY / "profiles/rehearsal.yaml").read_text())
    with pytest.raises(ValueError, match=r"tier: .*demo"):
        Params.model_validate(data | {"tier": "standard"})
