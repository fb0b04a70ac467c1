"""What the data verbs read and write."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.data import load_table
from reasoning_embedding.errors import InputError
from reasoning_embedding.preparing.files import check_output, claim_progress, data_section, row_file
from tests.preparing.animals import write_animal_rows


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_animal_rows(tmp_path / "rows.jsonl")


def test_a_configuration_names_the_rows(rows: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"kind: run\nname: x\nbackbone: {{kind: pretrained, path: x}}\n"
        f"data:\n  sources:\n    - {{kind: files, path: {rows}, limit: 3}}\n"
    )
    assert len(load_table(data_section(file))) == 3
    assert isinstance(data_section(rows).sources[0], config.FilesSource)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_appear_when_all_are_written(tmp_path: Path, name: str) -> None:
    def stop_half_way() -> None:
        with row_file(tmp_path / name) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert not list(tmp_path.iterdir())
    with row_file(tmp_path / name) as file:
        file.write(b"all")
    content = (tmp_path / name).read_bytes()
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == b"all"
    with pytest.raises(InputError, match="not overwritten"):
        check_output(tmp_path / name)


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    check_output(tmp_path / "rows.jsonl.gz")
    with pytest.raises(InputError, match="JSON Lines"):
        check_output(tmp_path / "rows.parquet")


def test_what_a_stopped_job_left_is_taken_up_with_the_same_settings_only(tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    folder = claim_progress(output, {"model": "a", "rule": {"k": 1}})
    assert claim_progress(output, {"model": "a", "rule": {"k": 1}}) == folder
    assert claim_progress(output, {"model": "a", "rule": {"k": 2}}, free=("rule",)) == folder
    with pytest.raises(InputError, match="another model, rule"):
        claim_progress(output, {"model": "b", "rule": {"k": 1}})
