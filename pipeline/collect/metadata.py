"""What is said of an image where it is listed, and whether the image may be taken."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.collect.licences import Licence, licence
from pipeline.collect.sources.base import Found
from pipeline.store import Failures
from schemas.params import MetadataField, Source
from schemas.safeguards import forbidden_reason

__all__ = ["FIELDS", "Candidate", "ImageMetadata", "judged"]

FIELDS: tuple[str, ...] = get_args(MetadataField)


class ImageMetadata(BaseModel):
    """One row of a list. `class` and `safe` are what the image was collected for."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    file_name: str = ""
    url: str = ""
    caption: str = ""
    subject: str = ""
    objects: list[str] = []
    class_: str = Field(alias="class", min_length=1)
    safe: bool
    license: str = ""
    author: str = ""
    page_url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    retrieved_at: str = ""
    source_package: str = ""

    @field_validator("license", "caption", "subject", "author", "retrieved_at", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Lists hold licences as Flickr's numbers, and times as times."""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value.isoformat() if isinstance(value, (date, datetime)) else value

    @field_validator("objects", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Formats without lists hold a JSON list, or words with semicolons between them."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except RecursionError as error:
                raise ValueError("lists within lists within lists") from error
        return [part.strip() for part in value.split(";") if part.strip()]

    @field_validator("retrieved_at")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value:
            datetime.fromisoformat(value)
        return value

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        """JSON can spell halves of characters, which no table can hold."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                text.encode()
        return value


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may be taken; its bytes are not read yet."""

    found: Found
    meta: ImageMetadata
    licence: Licence

    def row(self, kind: str, image_id: str, data: bytes, retrieved_at: str) -> dict[str, Any]:
        """The raw row."""
        meta = self.meta
        return {
            "image_id": image_id,
            "source_uri": self.found.where,
            "source_kind": kind,
            "page_url": meta.page_url,
            "source_package": meta.source_package,
            "author": meta.author,
            "licence": self.licence.spdx,
            "redistributable": self.licence.redistributable,
            "retrieved_at": retrieved_at or meta.retrieved_at,
            "generator": "",
            "recipe": "",
            "caption": meta.caption,
            "subject": meta.subject,
            "objects": meta.objects,
            "intended_class": meta.class_,
            "intended_safe": meta.safe,
            "bytes": data,
        }


def judged(found: Found, source: Source, classes: Collection[str], failures: Failures) -> Candidate | None:
    """Check what is said of an image.

    Args:
        found: the image as its source lists it.
        source: what stands where the row says nothing, and what to do with an unknown licence.
        classes: that the taxonomy has.
        failures: takes what is wrong.

    Returns:
        The candidate; None where something is wrong.
    """
    try:
        meta = ImageMetadata.model_validate(_completed(found.fields, source))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        failures.add("", found.where, "row not valid", f"{found.line}: {field}: {problem['msg']}")
        return None
    allowed = licence(meta.license)
    if meta.class_ not in classes:
        failures.add("", found.where, "unknown class", f"{found.line}: class: {meta.class_!r}")
    elif allowed.redistributable == "unknown" and source.unknown_licence == "refuse":
        failures.add(
            "",
            found.where,
            "unknown licence",
            f"{found.line}: license: {meta.license!r}; set unknown_licence: keep to take it all the same",
        )
    elif reason := forbidden_reason(" ".join([meta.caption, meta.subject, *meta.objects])):
        failures.add("", found.where, "caption refused", f"{found.line}: {reason}")
    else:
        return Candidate(found, meta, allowed)
    return None


def _completed(fields: Mapping[str, Any], source: Source) -> dict[str, Any]:
    said = {
        name: value
        for name, value in fields.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }
    defaults: dict[str, Any] = {
        "license": source.license,
        "author": source.author,
        "page_url": source.page_url,
    }
    if source.intended is not None:
        defaults |= {"class": source.intended.class_, "safe": source.intended.safe}
    return {**defaults, **said}
