"""What the data verbs read and write."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.data import load_table
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json
from reasoning_embedding.preparing.files import RowOutput, data_section
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
        with RowOutput(tmp_path / name).open() as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert not list(tmp_path.iterdir())
    with RowOutput(tmp_path / name).open() as file:
        file.write(b"all")
    content = (tmp_path / name).read_bytes()
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == b"all"
    with pytest.raises(InputError, match="not overwritten"):
        RowOutput(tmp_path / name)


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    RowOutput(tmp_path / "rows.jsonl.gz")
    with pytest.raises(InputError, match="JSON Lines"):
        RowOutput(tmp_path / "rows.parquet")


def test_what_a_stopped_job_left_is_taken_up_with_the_same_settings_only(tmp_path: Path) -> None:
    output = RowOutput(tmp_path / "rows.jsonl")
    output.claim({"model": "a", "rule": {"k": 1}})
    output.claim({"model": "a", "rule": {"k": 1}})
    output.claim({"model": "a", "rule": {"k": 2}}, free=("rule",))
    with pytest.raises(InputError, match="another model, rule"):
        output.claim({"model": "b", "rule": {"k": 1}})
    output.finish({"rows": 3})
    assert not output.progress.exists()
    assert read_json(output.report) == {"rows": 3}
