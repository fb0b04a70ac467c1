"""The data verbs: what they write, what they refuse, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding import config
from reasoning_embedding.cli.main import main
from reasoning_embedding.data import load_table
from reasoning_embedding.data.quality.shingles import normalise
from reasoning_embedding.preparing.files import data_section
from tests.preparing.animals import read, save_checkpoint, write_animal_rows


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["data", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("embedder"), tiny_tokenizer)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_animal_rows(tmp_path / "rows.jsonl")


def test_mined_rows_are_read_back_with_their_scores(rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined.jsonl.gz"
    assert run("mine", rows, "-o", output, "--model", "bm25", "-k", 3, "--ranks", "2-20") == 0
    mined = read(output)
    assert len(mined) == 40
    for record in mined:
        assert record["prompt"] == "find"
        assert len(record["neg_scores"]) == len(record["neg"]) <= 3
        assert not set(record["pos"]) & set(record["neg"])
        assert all(score <= 0.95 * record["pos_scores"][0] + 1e-6 for score in record["neg_scores"])
    found = json.loads((tmp_path / "mined.jsonl.gz.report.json").read_text())
    assert found["negatives"] == sum(len(record["neg"]) for record in mined) > 40
    table = load_table(data_section(output))
    assert table.negative_scores is not None
    assert len(table.negative_scores) == found["negatives"]
    made = {path.name for path in output.parent.iterdir()} - {rows.name}
    assert made == {"mined.jsonl.gz", "mined.jsonl.gz.report.json"}


def test_our_encoder_and_sentence_transformers_mine_the_same(
    rows: Path, tmp_path: Path, checkpoint: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    (other / "provenance.json").unlink()  # no checkpoint of ours any more: sentence-transformers loads it
    mined = []
    for number, model in enumerate((checkpoint, other)):
        output = tmp_path / f"{number}.jsonl"
        assert (
            run(
                "mine",
                rows,
                "-o",
                output,
                "--model",
                model,
                "-k",
                5,
                "--positive-share",
                0,
                "--max-tokens",
                32,
            )
            == 0
        )
        mined.append(read(output))
    for ours, theirs in zip(*mined, strict=True):
        assert ours["neg_scores"] == pytest.approx(theirs["neg_scores"], abs=1e-5)
        assert ours["pos_scores"] == pytest.approx(theirs["pos_scores"], abs=1e-5)


def test_filters_count_what_they_drop(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    doubled = tmp_path / "doubled.jsonl"
    doubled.write_text(rows.read_text() * 2)
    output = tmp_path / "kept.jsonl"
    arguments = (
        "filter",
        doubled,
        "-o",
        output,
        "--duplicates",
        "--consistency",
        3,
        "--margin",
        0.5,
    )
    assert run(*arguments, "--model", "bm25", "--min-length", 21) == 0
    found = json.loads((tmp_path / "kept.jsonl.report.json").read_text())
    assert found["rows"] == 80
    assert found["kept"] == len(read(output)) == 80 - sum(found["dropped"].values())
    assert found["dropped"]["repeats an earlier row"] == found["kept"] + sum(
        found["dropped"][name] for name in ("margin too narrow", "positive not among the best")
    )
    assert f"{found['kept']} of 80 rows kept" in capsys.readouterr().out


def test_statistics_are_printed_and_written(
    rows: Path, tmp_path: Path, tiny_tokenizer: Path, capsys: Any
) -> None:
    hostile = tmp_path / "hostile.jsonl"
    text = "<script>alert(1)</script>"
    hostile.write_text(
        rows.read_text() + json.dumps({"query": text, "pos": [text], "neg": ["n"], "source": text}) + "\n"
    )
    assert (
        run("stats", hostile, "-o", tmp_path / "stats", "--tokenizer", tiny_tokenizer, "--model", "bm25") == 0
    )
    printed = capsys.readouterr().out
    assert "tokens of a query" in printed
    assert "negatives above 95 % of their positive" in printed
    found = json.loads((tmp_path / "stats" / "statistics.json").read_text())
    assert found["unit"] == "tokens"
    assert found["suspects"]["the query is its own positive"]["rows"] == 1
    page = (tmp_path / "stats" / "index.html").read_text()
    assert "<script" not in page
    assert page.count("<svg") == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine", "ROWS", "-o", "NEW"], "no model is named"),
        (["mine", "ROWS", "-o", "NEW", "--model", "bm25", "-k", 60], "smaller than the 60 negatives"),
        (["mine", "ROWS", "-o", "NEW", "--model", "bm25", "--ranks", "10"], "no window of ranks"),
        (["mine", "ROWS", "-o", "NEW", "--model", "bm25", "--faiss", "Flat"], "no vectors to index"),
        (
            ["mine", "ROWS", "-o", "NEW", "--model", "bm25", "--min-score", 9e9],
            "none of 40 rows has a negative",
        ),
        (["mine", "ROWS", "-o", "NEW", "--model", "/nowhere"], "names no model"),
        (["mine", "ROWS", "-o", "ROWS", "--model", "bm25"], "exists and is not overwritten"),
        (["mine", "ROWS", "-o", "x.csv", "--model", "bm25"], "written as JSON Lines"),
        (["mine", "nowhere.jsonl", "-o", "NEW", "--model", "bm25"], "no such file"),
        (["filter", "ROWS", "-o", "NEW"], "no rule is given"),
        (
            ["filter", "ROWS", "-o", "NEW", "--min-length", 9999],
            "every one of 40 rows is dropped (40 x fewer",
        ),
        (["filter", "ROWS", "-o", "NEW", "--margin", 1], "40 of 40 rows with negatives have no scores"),
        (["filter", "ROWS", "-o", "NEW", "--consistency", 1], "needs a model"),
        (["filter", "ROWS", "-o", "NEW", "--min-length", 9, "--max-length", 8], "at least 9 and at most 8"),
        (["filter", "ROWS", "-o", "NEW", "--decontaminate", "/nowhere"], "no such folder"),
        (["stats", "ROWS", "--tokenizer", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_named_and_nothing_is_overwritten(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[object], message: str
) -> None:
    if arguments[-1] == 60:
        message = "smaller than the 60 negatives"
    before = rows.read_bytes()
    places = {"ROWS": rows, "NEW": tmp_path / "new.jsonl"}
    command = [places.get(str(one), one) for one in arguments]
    if "-k" in command:
        command += ["--ranks", "1-60"]
    assert run(*command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert rows.read_bytes() == before
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize("line", ['{"query": "q"}', '{"query": "q", "pos": ["p"], "pos_scores": ["high"]}'])
def test_rows_without_positives_or_with_broken_scores_are_placed(
    tmp_path: Path, line: str, capsys: Any
) -> None:
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    assert run("stats", tmp_path / "bad.jsonl") == 2
    assert "bad.jsonl:1" in capsys.readouterr().err


def test_the_real_mix_is_mined_and_never_answers_itself(real_data: Path, tmp_path: Path) -> None:
    mix = real_data / "derived" / "mix"
    source = {
        "kind": "mix",
        "rows": str(mix / "train.jsonl.gz"),
        "corpus": str(mix / "corpus.jsonl.gz"),
        "limit": 150,
    }
    file = tmp_path / "run.yaml"
    settings = {
        "kind": "run",
        "name": "x",
        "backbone": {"kind": "pretrained", "path": "x"},
        "data": {"sources": [source]},
    }
    file.write_text(json.dumps(settings))
    output = tmp_path / "mined.jsonl"
    assert run("mine", file, "-o", output, "--model", "bm25", "-k", 5) == 0
    mined = read(output)
    assert len(mined) == 150
    assert {row["source"] for row in mined} >= {"gsm8k", "medquad", "clinc150"}
    answers: dict[str, set[str]] = {}
    for row in mined:
        answers.setdefault(normalise(row["query"]), {normalise(row["query"])}).update(
            map(normalise, row["pos"])
        )
    for row in mined:
        assert not answers[normalise(row["query"])] & set(map(normalise, row["neg"]))
        assert len(set(row["neg"])) == len(row["neg"]) == len(row["neg_scores"])
        assert row["neg_scores"] == sorted(row["neg_scores"], reverse=True)
    assert sum(len(row["neg"]) for row in mined) > 150


@pytest.mark.parametrize(
    "verb",
    [
        ("mine", "--model", "bm25", "-k", 2, "--ranks", "1-20"),
        ("filter", "--duplicates", "--near-duplicates", "--max-length", 37),
        ("stats",),
    ],
    ids=lambda verb: verb[0],
)
def test_large_rows_are_read_from_disk_and_give_the_same(
    verb: tuple, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reasoning_embedding.data import cache

    name, *options = verb
    made: list[Path] = []
    build = cache.build_table

    def spy(data: config.Data, folder: Path | None, *prompts: Any) -> Any:
        if folder is not None:
            made.append(folder.parent)
        return build(data, folder, *prompts)

    monkeypatch.setattr(cache, "build_table", spy)
    content = []
    for limit in (cache.LARGE, 1):
        monkeypatch.setattr(cache, "LARGE", limit)
        output = tmp_path / f"{limit}.jsonl"
        assert run(name, rows, "-o", output, *options) == 0
        content.append((output / "statistics.json" if name == "stats" else output).read_bytes())
    assert content[0] == content[1]
    assert len(made) == 1
    assert not made[0].exists()
