"""From the licences that people write to SPDX, and whether an image may be passed on.

The dataset is published in changed form, for anybody and any use. So a licence that forbids changes (ND) or
commerce (NC) does not allow it, and neither do the licences of picture sites that forbid passing pictures on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Licence", "licence"]

Redistributable = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Licence:
    """An SPDX id (or LicenseRef-…, or NOASSERTION where nothing is known) and what it allows."""

    spdx: str
    redistributable: Redistributable


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]+$")]
    redistributable: Redistributable
    spellings: list[str] = []


UNKNOWN = Licence("NOASSERTION", "unknown")
_VERSIONS = ("1.0", "2.0", "2.5", "3.0", "4.0")
_PORTS = {
    "BY": ("2.5-AU", "3.0-AT", "3.0-AU", "3.0-DE", "3.0-IGO", "3.0-NL", "3.0-US"),
    "BY-SA": ("2.0-UK", "2.1-JP", "3.0-AT", "3.0-DE", "3.0-IGO"),
    "BY-NC": ("3.0-DE",),
    "BY-NC-SA": ("2.0-DE", "2.0-FR", "2.0-UK", "3.0-DE", "3.0-IGO"),
    "BY-NC-ND": ("3.0-DE", "3.0-IGO"),
    "BY-ND": ("3.0-DE",),
}
"""The ports of Creative Commons licences that SPDX lists; others go by the licence they are a port of."""
_URL = re.compile(
    r"^(?:https?://)?(?:www\.)?creativecommons\.org/"
    r"(?:licenses/(?P<code>by(?:-(?:nc|nd|sa)){0,2})(?:/(?P<version>\d\.\d))?(?:/(?P<port>[a-z]{2,8}))?"
    r"|publicdomain/(?P<public>zero|mark)(?:/\d\.\d)?|licenses/(?P<dedicated>publicdomain))"
    r"(?:/(?:deed|legalcode)(?:\.[a-z_-]+)?)?/?(?:[?#]\S*)?$"
)
"""The whole of a URL: whatever follows it in words may take back what it grants."""
_SITE = re.compile(r"^https?://(?:www\.)?")
_RESERVED = re.compile(r"\ball rights reserved\b|^(?:https?://)?(?:www\.)?rightsstatements\.org/\w+/inc\b")
_PORT_CODES = frozenset(
    re.findall(
        r"\w+",
        "at au az be br ca ch cl cn co cr cz de dk ec ee es fi fr ge gr gt hk hr hu ie igo il in it jp kr lu "
        "mk mt mx my nl no nz pe ph pl pr pt ro rs se sg si th tw ug uk us ve vn za",
    )
)
_WORDS = {
    "attribution": "by",
    "noncommercial": "nc",
    "noncommerical": "nc",
    "noderivatives": "nd",
    "noderivs": "nd",
    "nonderivative": "nd",
    "sharealike": "sa",
}
_FILLERS = frozenset(
    {"creative", "commons", "creativecommons", "license", "licence", "licensed", "the", "under"}
)
_FILLERS |= {"public", "international", "generic", "unported", "cc", "a", "deed", "legalcode", "v", "version"}
_FILLERS |= {"works", "migrated"}
_MARKS = frozenset({"cc", "creative", "creativecommons", "attribution"})
"""Words without one of which a name is none of Creative Commons': "by" alone says nothing."""
_LICENSE_REF = re.compile(r"^licenseref-[a-z0-9.-]+$", re.IGNORECASE)


def licence(text: str) -> Licence:
    """What a licence as somebody wrote it is; any text has an answer."""
    plain = _plain(text)
    if known := _table().get(plain):
        return known
    if _RESERVED.search(plain):
        return _table()["all rights reserved"]
    own = plain.removeprefix("licenseref-")
    if found := _creative_commons_url(plain) or _creative_commons(own) or _name_and_url(plain):
        return found
    if _LICENSE_REF.match(text.strip()):
        return Licence("LicenseRef-" + text.strip()[11:], "unknown")
    return UNKNOWN


def _plain(text: str) -> str:
    plain = " ".join(text.lower().split()).strip(" .;,\"'").removesuffix("/")
    # The table has no two entries that differ in how a site is reached.
    return _SITE.sub("", plain)


@cache
def _table() -> dict[str, Licence]:
    text = resources.files("pipeline.collect").joinpath("licences.yaml").read_text("utf-8")
    table: dict[str, Licence] = {}
    for raw in yaml.safe_load(text):
        entry = _Entry.model_validate(raw)
        found = Licence(entry.id, entry.redistributable)
        for spelling in (entry.id, *entry.spellings):
            if table.setdefault(_plain(spelling), found) != found:
                raise ValueError(f"licences.yaml: {spelling!r} stands for two licences")
    return table


def _creative_commons_url(plain: str) -> Licence | None:
    match = _URL.match(plain)
    if match is None:
        return None
    if match["dedicated"]:
        return Licence("LicenseRef-PublicDomain", "yes")
    if match["public"]:
        return Licence({"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}[match["public"]], "yes")
    return _named(match["code"].split("-"), match["version"] or "", match["port"] or "")


def _name_and_url(plain: str) -> Licence | None:
    """A name with the URL of the same licence behind it: `CC BY 4.0 (https://…/by/4.0/)`."""
    name, _, url = plain.rstrip(")").rpartition(" ")
    found = _creative_commons(name.strip())
    return found if found and found == _creative_commons_url(_plain(url.strip("("))) else None


def _creative_commons(plain: str) -> Licence | None:
    """Names such as `CC BY-SA 3.0 DE` and `Creative Commons Attribution-ShareAlike 4.0 International`."""
    text = re.sub(r"\b(non|no|share)[- ](commerc\w+|deriv\w+|alike)\b", r"\1\2", plain)
    tokens = re.findall(r"\d+\.\d+|\d+|[a-z]+|[^\s]", text.replace("noderivative ", "noderivatives "))
    if not _MARKS & set(tokens) and not re.match(r"by-(nc|nd|sa)\b", text):
        return None
    parts, version, port = [], "", ""
    for before, token in pairwise(["", *tokens]):
        word = _WORDS.get(token, token)
        if word in {"by", "nc", "nd", "sa"}:
            parts += [word] if word not in parts else []  # some write both the name and the short form
        elif re.fullmatch(r"\d\.\d|\d", word):
            version = version or (word if "." in word else f"{word}.0")  # of several, any may be chosen
        elif word in _PORT_CODES and re.fullmatch(r"[\d.]+|-|_|/|\(", before) and version and not port:
            port = word
        elif word not in _FILLERS and word not in {"-", "_", "/", "(", ")", ",", ":"}:
            return None
    return _named(parts, version, port)


def _named(parts: list[str], version: str, port: str) -> Licence | None:
    if parts[:1] != ["by"] or set(parts) - {"by", "nc", "nd", "sa"} or {"nd", "sa"} <= set(parts):
        return None
    code = "-".join(p.upper() for p in ("by", "nc", "nd", "sa") if p in parts)
    allowed: Redistributable = "no" if {"nc", "nd"} & set(parts) else "yes"
    ported = f"{version}-{port.upper()}"
    if port and ported in _PORTS.get(code, ()):
        return Licence(f"CC-{code}-{ported}", allowed)
    if version in _VERSIONS:
        return Licence(f"CC-{code}-{version}", allowed)
    return Licence(f"LicenseRef-CC-{code}", allowed)
