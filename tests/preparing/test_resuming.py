"""Work on data files goes on after a kill, and gives what it would have given at once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.data.mining.hard_negatives import MiningRule
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json
from reasoning_embedding.preparing import filtering, mining
from reasoning_embedding.preparing.files import data_section
from reasoning_embedding.preparing.search import Searcher
from tests.factories import flip
from tests.preparing.animals import read, save_checkpoint, write_animal_rows


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("embedder"), tiny_tokenizer)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_animal_rows(tmp_path / "rows.jsonl")


def test_a_killed_miner_goes_on_and_writes_the_same(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    monkeypatch.setattr(mining, "ROWS", 8)
    data, searcher = data_section(rows), Searcher(str(checkpoint), max_tokens=32)
    rule = MiningRule(negatives=2, last=10, positive_share=None, draw="random")
    mining.mine_file(data, tmp_path / "whole.jsonl", searcher, rule)
    real, calls = mining.mine, []

    def stopping(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(mining, "mine", stopping)
    output = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        mining.mine_file(data, output, searcher, rule)
    assert not output.exists()
    folder = tmp_path / "part.jsonl.progress"
    assert len(list(folder.glob("rows-*.jsonl"))) == 2
    with pytest.raises(InputError, match="another rule"):
        mining.mine_file(data, output, searcher, MiningRule(negatives=1))
    # The vectors are there already: another process needs no model to go on.
    monkeypatch.setattr("reasoning_embedding.preparing.search.load_encoder", lambda searcher: None)
    flip(sorted(folder.glob("rows-*.jsonl"))[1], 30)
    said: list[str] = []
    mining.mine_file(data, output, searcher, rule, report=said.append)
    assert sum("it is made again" in line for line in said) == 1
    assert len(calls) == 7, "one more than without the damage"
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not folder.exists()


@pytest.mark.parametrize("verb", ["mine", "filter"])
@pytest.mark.parametrize("moment", ["before its report", "amid clearing up", "at the very end"])
def test_killed_when_its_output_is_there_the_same_command_counts_as_done(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, moment: str
) -> None:
    data, output = data_section(rows), tmp_path / "out.jsonl"
    said: list[str] = []

    def work(number: int = 2) -> dict[str, Any]:
        if verb == "mine":
            rule = MiningRule(negatives=number, last=10, positive_share=None)
            return mining.mine_file(data, output, Searcher("bm25"), rule, report=said.append)
        rule = filtering.FilterRule(min_length=number)
        return filtering.filter_file(data, output, rule, report=said.append)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "before its report":
            patch.setattr("reasoning_embedding.preparing.files.RowOutput.finish", killed)
        elif moment == "amid clearing up":
            patch.setattr("reasoning_embedding.preparing.files.shutil.rmtree", killed)
        with contextlib.suppress(KeyboardInterrupt):
            work()
    content = output.read_bytes()
    said.clear()
    result = work()
    assert ("done before" in said) == (moment != "before its report")
    assert output.read_bytes() == content
    assert read_json(tmp_path / "out.jsonl.report.json") == result
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.jsonl", "out.jsonl.report.json", "rows.jsonl",
    ]  # fmt: skip
    with pytest.raises(InputError, match="not overwritten"):
        work(3)
    output.unlink()
    assert work(3)["settings"] != result["settings"], "an old report speaks for no new file"


def test_a_model_scores_rows_for_the_filter_and_its_vectors_outlive_a_stop(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    output, searcher = tmp_path / "kept.jsonl", Searcher(str(checkpoint), max_tokens=32)
    data = data_section(rows)
    with pytest.raises(InputError, match="40 x margin too narrow"):
        filtering.filter_file(data, output, filtering.FilterRule(margin=9.0), searcher=searcher)
    assert (tmp_path / "kept.jsonl.progress").is_dir()
    monkeypatch.setattr("reasoning_embedding.preparing.search.load_encoder", lambda searcher: None)
    filtering.filter_file(data, output, filtering.FilterRule(margin=0.0), searcher=searcher)
    kept = read(output)
    assert 0 < len(kept) < 40
    assert all(min(row["pos_scores"]) >= max(row["neg_scores"]) for row in kept)
    assert not (tmp_path / "kept.jsonl.progress").exists()
