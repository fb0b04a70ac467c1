"""Tables made of records, as a file of rows gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasoning_embedding import config
from reasoning_embedding.data import Table, load_table
from tests.factories import write_lines


def table_of(folder: Path, *records: Mapping[str, Any], **settings: Any) -> Table:
    """Write records to ``rows.jsonl`` of a folder and read them, with these settings of the data section."""
    source = {"kind": "files", "path": str(write_lines(folder / "rows.jsonl", records))}
    return load_table(config.Data.model_validate({"sources": [source], **settings}))


def plain_table_of(folder: Path, *records: Mapping[str, Any]) -> Table:
    """:func:`table_of`, with queries whose prompt is their instruction."""
    return table_of(folder, *records, query_template="{instruction}")
