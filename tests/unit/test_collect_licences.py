"""Licences as people write them."""

from __future__ import annotations

import json
import re
from importlib import resources

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.collect.licences import licence
from tests.conftest import REPOSITORY

ENTRIES = yaml.safe_load(resources.files("pipeline.collect").joinpath("licences.yaml").read_text("utf-8"))
CC = [
    f"CC-{code}-{v}"
    for code in ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND")
    for v in ("2.0", "4.0")
]
CC += ["CC-BY-3.0-DE", "CC-BY-SA-2.1-JP", "CC-BY-NC-SA-3.0-IGO"]


@pytest.mark.parametrize("spdx", [*(e["id"] for e in ENTRIES), *CC])
def test_spdx_ids_stand_for_themselves_in_any_case(spdx: str) -> None:
    assert {licence(s).spdx for s in (spdx, spdx.lower(), spdx.upper(), f" {spdx} ")} == {spdx}


@pytest.mark.parametrize(
    ("text", "spdx", "redistributable"),
    [
        ("CC BY 2.0", "CC-BY-2.0", "yes"),
        ("Creative Commons Attribution-Share Alike 4.0 International", "CC-BY-SA-4.0", "yes"),
        ("Attribution 4.0 International (CC BY 4.0)", "CC-BY-4.0", "yes"),
        ("Attribution-ShareAlike License", "CC-BY-SA-2.0", "yes"),
        ("http://creativecommons.org/licenses/by-nc/2.5/ca/deed.en", "CC-BY-NC-2.5", "no"),
        ("https://creativecommons.org/licenses/by-sa/3.0/igo/legalcode", "CC-BY-SA-3.0-IGO", "yes"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", "yes"),
        ("https://creativecommons.org/publicdomain/mark/1.0/deed.de", "CC-PDM-1.0", "yes"),
        ("CC BY-ND", "LicenseRef-CC-BY-ND", "no"),
        ("by-sa", "LicenseRef-CC-BY-SA", "yes"),
        ("CC0", "CC0-1.0", "yes"),
        ("Public Domain", "LicenseRef-PublicDomain", "yes"),
        ("No known copyright restrictions", "LicenseRef-NoKnownCopyrightRestrictions", "yes"),
        ("Public domain (unclear)", "NOASSERTION", "unknown"),
        ("Royalty-free", "LicenseRef-RoyaltyFree", "unknown"),
        ("All rights reserved", "LicenseRef-AllRightsReserved", "no"),
        ("Pixabay License", "LicenseRef-Pixabay", "no"),
        ("https://unsplash.com/license", "LicenseRef-Unsplash", "no"),
        ("GPLv2+", "GPL-2.0-or-later", "yes"),
        ("SIL Open Font License 1.1", "OFL-1.1", "yes"),
        ("LicenseRef-Acme", "LicenseRef-Acme", "unknown"),
        ("LicenseRef-CC-BY-NC", "LicenseRef-CC-BY-NC", "no"),
        ("CC BY-SA 4.0,3.0,2.5,2.0,1.0", "CC-BY-SA-4.0", "yes"),
        ("CC-BY-SA-3.0-migrated", "CC-BY-SA-3.0", "yes"),
        ("CC BY 3.0 NO", "CC-BY-3.0", "yes"),
        ("Creative Commons Attribution - No Derivative Works 3.0", "CC-BY-ND-3.0", "no"),
        ("CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)", "CC-BY-4.0", "yes"),
        ("http://unsplash.com/license", "LicenseRef-Unsplash", "no"),
        ("http://www.opensource.org/licenses/MIT", "MIT", "yes"),
        ("\u00a9 2020 Jane. All rights reserved.", "LicenseRef-AllRightsReserved", "no"),
        ("http://rightsstatements.org/vocab/InC/1.0/", "LicenseRef-AllRightsReserved", "no"),
        ("CC0: Public Domain", "CC0-1.0", "yes"),
        (
            "https://creativecommons.org/licenses/by/4.0/ All rights reserved",
            "LicenseRef-AllRightsReserved",
            "no",
        ),
        ("taken by Jane", "NOASSERTION", "unknown"),
        ("", "NOASSERTION", "unknown"),
    ],
)
def test_spellings(text: str, spdx: str, redistributable: str) -> None:
    found = licence(text)
    assert (found.spdx, found.redistributable) == (spdx, redistributable)


@pytest.mark.parametrize(
    "text",
    [
        "https://creativecommons.org/licenses/by/4.0/ for non-commercial use only",
        "https://creativecommons.org/licenses/by/4.0/, https://creativecommons.org/licenses/by-nc-nd/4.0/",
        "https://creativecommons.org/publicdomain/zero/1.0/ metadata only",
        "https://creativecommons.org/licenses/by/nc/4.0/",
        "https://creativecommons.org/publicdomain/x/1.0/",
        "by",
        "By:",
        "licensed by",
        "by the public",
        "CC BY 4.0 not",
        "CC BY 4.0 non",
        "CC BY 4.0, no",
        "CC BY 4.0 ARR",
        "CC BY 4.0 (https://creativecommons.org/licenses/by-nc/4.0/)",
    ],
)
def test_words_that_may_take_a_licence_back_leave_it_unknown(text: str) -> None:
    assert licence(text).redistributable == "unknown"


def test_flickrs_numbers() -> None:
    ids = [licence(str(n)).spdx for n in range(11)]
    assert ids[4] == "CC-BY-2.0"
    assert len(set(ids)) == 11
    assert [licence(str(n)).redistributable for n in range(11)] == ["no"] * 4 + ["yes"] * 2 + ["no"] + [
        "yes"
    ] * 4


WORDS = st.lists(st.sampled_from(["cc", "by", "nc", "nd", "sa", "4.0", "de", "-", "/", "gpl"]))


@given(st.one_of(st.text(), WORDS.map(" ".join)))
def test_any_text_has_an_answer_that_is_a_valid_id(text: str) -> None:
    found = licence(text)
    assert re.fullmatch(r"[A-Za-z0-9.+-]+", found.spdx)
    assert found.redistributable in {"yes", "no", "unknown"}
    assert licence(found.spdx).spdx == found.spdx
    if re.search(r"-N[CD]\b", found.spdx) and not found.spdx.startswith("LicenseRef"):
        assert found.redistributable == "no"


def test_the_seed_images_have_known_licences_under_their_own_ids() -> None:
    for line in (REPOSITORY / "data" / "seed" / "metadata.jsonl").read_text().splitlines():
        written = json.loads(line)["license"]
        assert (licence(written).spdx, licence(written).redistributable) == (written, "yes")
