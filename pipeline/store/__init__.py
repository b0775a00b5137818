"""Tables and files on disk, written atomically."""

from pipeline.store.atomic import (
    new_text,
    replace_directory,
    take_over,
    write_bytes,
    write_json,
    write_json_list,
    write_text,
)
from pipeline.store.blobs import Blobs, LostBlobError
from pipeline.store.database import told_as_of_file
from pipeline.store.hashing import canonical_json, sha256_bytes, sha256_file, sha256_text
from pipeline.store.tables import (
    Cells,
    Failures,
    TableWriter,
    join_tables,
    read_rows,
    row_of,
    rows_with,
    write_rows,
)
from pipeline.store.text import printable

__all__ = [
    "Blobs",
    "Cells",
    "Failures",
    "LostBlobError",
    "TableWriter",
    "canonical_json",
    "join_tables",
    "new_text",
    "printable",
    "read_rows",
    "replace_directory",
    "row_of",
    "rows_with",
    "sha256_bytes",
    "sha256_file",
    "sha256_text",
    "take_over",
    "told_as_of_file",
    "write_bytes",
    "write_json",
    "write_json_list",
    "write_rows",
    "write_text",
]
