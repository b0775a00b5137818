"""What flows between stages: the Arrow schema of each table.

Every table of a stage is a Parquet file under `data/<stage>/`; every stage has a `failures` table.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "CALLS",
    "CLASS_NONE",
    "DATASET",
    "FAILURES",
    "IMAGES",
    "IMAGE_LABELS",
    "PAIRS",
    "PROOFS",
    "QUERIES",
    "RAW_IMAGES",
    "RESPONSES",
    "SURPLUS",
    "TEXT_PAIR_LABELS",
    "VOTE",
    "VOTES",
]

CLASS_NONE = "safe"
"""The class of a safe item, HoliSafe's label 0."""

FAILURES = pa.schema(
    [
        ("stage", pa.string()),
        ("item_id", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""What a stage could not use, and why."""

SURPLUS = "surplus not needed"
"""The reason of a failure that is none: more is drafted than is wanted."""

_ORIGIN = [
    ("image_id", pa.string()),  # sha256 of the bytes received
    ("source_uri", pa.string()),  # file, member of an archive, URL, drawing or picture it came from
    ("source_kind", pa.string()),  # a kind of collect.sources or generate.pictures, or drawing
    ("page_url", pa.string()),  # where its licence can be read
    ("source_package", pa.string()),
    ("author", pa.string()),
    ("licence", pa.string()),  # SPDX
    ("redistributable", pa.string()),  # yes, no, unknown
    ("retrieved_at", pa.string()),  # ISO date and time; empty where nobody knows
    ("generator", pa.string()),
    ("recipe", pa.string()),  # JSON
    ("caption", pa.string()),
    ("subject", pa.string()),
    ("objects", pa.list_(pa.string())),
    ("intended_class", pa.string()),
    ("intended_safe", pa.bool_()),
]

RAW_IMAGES = pa.schema([*_ORIGIN, ("bytes", pa.binary())])
"""Images as received or made: collect, generate."""

IMAGES = pa.schema(
    [
        *_ORIGIN,
        ("pixels_sha256", pa.string()),
        ("phash", pa.string()),  # 256 bits as 64 hexadecimal digits
        ("leak_group", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("stripped", pa.list_(pa.string())),  # metadata that was removed
        ("notes", pa.list_(pa.string())),  # what normalisation changed
        ("ocr_text", pa.string()),
        ("personal_data", pa.list_(pa.string())),  # kinds that the text seems to hold
        ("nudity", pa.float32()),  # this and the next two: null where not looked for
        ("faces", pa.int32()),  # how many people's faces were found
        ("face_share", pa.float32()),  # of the picture, that the largest covers
        ("bytes", pa.binary()),  # normalised JPEG
    ]
)
"""Images as they go on: curate."""

CALLS = pa.schema(
    [
        ("item_id", pa.string()),  # empty where nothing came of the call
        ("call_key", pa.string()),
    ]
)
"""The calls that a stage rests on, where they are no votes."""

VOTES = pa.schema(
    [
        ("item_id", pa.string()),
        ("question", pa.string()),
        ("annotator", pa.string()),
        ("family", pa.string()),
        ("status", pa.string()),
        ("value", pa.string()),
        ("score", pa.float32()),
        ("note", pa.string()),
        ("call_key", pa.string()),  # of the model call behind it, where there was one
    ]
)
"""Every vote behind a label."""

PROOFS = pa.schema(
    [
        ("item_id", pa.string()),  # the pair; one row for each who was asked about it
        ("annotator", pa.string()),
        ("family", pa.string()),
        ("sees", pa.string()),  # words or pixels
        ("status", pa.string()),
        ("harmed", pa.string()),  # this and the next three: null unless the status is ok
        ("harm", pa.string()),
        ("how", pa.string()),
        ("verdict", pa.string()),
        ("note", pa.string()),  # why the status is not ok
        ("call_key", pa.string()),
        ("proven", pa.bool_()),  # of the pair
        ("reason", pa.string()),  # why it is not; empty where it is
    ]
)
"""Who is harmed by an SSU pair, and how, by everybody that was asked."""

IMAGE_LABELS = pa.schema(
    [
        ("image_id", pa.string()),
        ("image_safe", pa.bool_()),
        ("image_class", pa.string()),
        ("nearest_class", pa.string()),  # what the annotators would call it if it is unsafe
        ("grade_image", pa.string()),
        ("trigger", pa.bool_()),
        ("score", pa.float32()),
        ("agreement", pa.float32()),
        ("accepted", pa.bool_()),
    ]
)
"""What images were labelled as: label_images."""

QUERIES = pa.schema(
    [
        ("pair_id", pa.string()),
        ("image_id", pa.string()),
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("scene", pa.string()),
        ("square", pa.string()),
        ("rank", pa.int32()),  # 0 first; later squares are surplus
        ("role", pa.string()),
        ("harm_class", pa.string()),
        ("split", pa.string()),
        ("intended_type", pa.string()),
        ("expected", pa.string()),
        ("spare", pa.bool_()),  # an SSS neighbour in reserve
        ("writer", pa.string()),
    ]
)
"""Candidates in squares: synthesize."""

PAIRS = pa.schema(
    [
        *QUERIES,
        ("type", pa.string()),
        ("grade_image", pa.string()),
        ("grade_text", pa.string()),
        ("grade_joint", pa.string()),
        ("text_score", pa.float32()),
        ("pair_score", pa.float32()),  # null where an unsafe text makes the pair unsafe
        ("agreement", pa.float32()),
        ("ssu_unverified", pa.bool_()),
    ]
)
"""Pairs that are kept: label_pairs."""

TEXT_PAIR_LABELS = pa.schema(
    [
        ("item_id", pa.string()),  # sha256 of the text, or the pair's id
        ("question", pa.string()),
        ("safe", pa.bool_()),
        ("score", pa.float32()),
        ("agreement", pa.float32()),
    ]
)
"""What queries and pairs were labelled as: label_pairs."""

RESPONSES = pa.schema(
    [
        ("pair_id", pa.string()),
        ("response", pa.string()),
        ("rationale", pa.string()),  # JSON: class, image, text, why, safer
        ("generator", pa.string()),
    ]
)
"""Responses and their rationales: respond."""

VOTE = pa.struct([(f.name, f.type) for f in VOTES if f.name not in ("item_id", "call_key")])
"""A vote in the dataset: without what means something only beside the builder's own call cache."""

DATASET = pa.schema(
    [
        ("id", pa.int64()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("query", pa.string()),
        ("type", pa.string()),
        ("category", pa.string()),
        ("subcategory", pa.string()),
        ("image_safe", pa.bool_()),
        ("image_safety_label", pa.int32()),
        ("grade_image", pa.string()),
        ("grade_text", pa.string()),
        ("grade_joint", pa.string()),
        ("expected", pa.string()),
        ("class_key", pa.string()),
        ("response", pa.string()),
        ("rationale", pa.string()),
        ("votes", pa.list_(VOTE)),
        ("agreement", pa.float32()),
        ("contrast_square", pa.string()),
        ("scene", pa.string()),
        ("ssu_unverified", pa.bool_()),
        ("caption", pa.string()),
        ("image_id", pa.string()),
        ("query_id", pa.string()),
        ("source_uri", pa.string()),
        ("page_url", pa.string()),
        ("source_package", pa.string()),
        ("author", pa.string()),
        ("licence", pa.string()),
        ("redistributable", pa.string()),
        ("retrieved_at", pa.string()),
        ("generator", pa.string()),
        ("query_writer", pa.string()),
        ("response_writer", pa.string()),
        ("lang", pa.string()),
        ("translation_of", pa.int64()),
        ("policy_version", pa.string()),
        ("canary", pa.string()),
        ("tier", pa.string()),
        ("generator_terms", pa.string()),
    ]
)
"""A row of the dataset: assemble."""
