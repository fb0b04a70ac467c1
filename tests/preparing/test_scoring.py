"""A teacher's scores: what they are, whose, and going on after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.cli.main import app
from reasoning_embedding.data import load_table
from reasoning_embedding.data.teacher_vectors import TeacherVectors
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json
from reasoning_embedding.preparing import scoring
from reasoning_embedding.preparing.files import data_section
from reasoning_embedding.preparing.scoring import Teacher, score_file
from tests.factories import flip
from tests.preparing.animals import read, save_checkpoint, write_animal_rows

TEMPLATE = "Instruct: {instruction}\nQuery: "


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("embedder"), tiny_tokenizer)


def write_cross_encoder(folder: Path, tokenizer: Path, *, labels: int = 1) -> Path:
    """A one-layer BERT that scores pairs."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    words = AutoTokenizer.from_pretrained(tokenizer)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    padding = words.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = BertConfig(
            vocab_size=len(words), num_labels=labels, pad_token_id=padding, initializer_range=1.0, **sizes
        )
        BertForSequenceClassification(settings).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross") / "model", tiny_tokenizer)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_animal_rows(tmp_path / "rows.jsonl")


def test_an_embedders_scores_are_its_cosines(rows: Path, tmp_path: Path, checkpoint: Path) -> None:
    output = tmp_path / "scored.jsonl.gz"
    found = score_file(data_section(rows), output, Teacher(str(checkpoint)))
    embedder = load_embedder(checkpoint)
    for before, after in zip(read(rows), read(output), strict=True):
        instruction, query = before["query"]
        asked = embedder.encode([query], prompt=TEMPLATE.replace("{instruction}", instruction))[0]
        for name in ("pos", "neg"):
            expected = embedder.encode(before[name], prompt="") @ asked
            np.testing.assert_allclose(after[f"{name}_scores"], expected, atol=1e-6)
        assert (after["query"], after["pos"], after["neg"]) == (query, before["pos"], before["neg"])
    report = read_json(output.with_name("scored.jsonl.gz.report.json"))
    assert report["teacher"]["kind"] == "embedder"
    assert report["teacher"]["dtype"] == "float32"
    assert report["teacher"]["max_tokens"] == 64
    assert report["settings"]["teacher"]["content"]
    assert found["pairs"] == 80
    assert score_file(data_section(rows), output, Teacher(str(checkpoint))) == report  # done before
    with pytest.raises(InputError, match="exists and is not overwritten"):
        score_file(data_section(rows), output, Teacher(str(checkpoint), max_tokens=4))


def test_what_the_user_says_goes_before_the_models_own_prompts(
    rows: Path, tmp_path: Path, checkpoint: Path
) -> None:
    embedder = load_embedder(checkpoint)
    asked = Teacher(str(checkpoint), query_prompt="find: ", document_prompt="who ")
    score_file(data_section(rows), tmp_path / "said.jsonl", asked)
    first, after = read(rows)[0], read(tmp_path / "said.jsonl")[0]
    query = embedder.encode([first["query"][1]], prompt="find: ")[0]
    np.testing.assert_allclose(
        after["pos_scores"], embedder.encode(first["pos"], prompt="who ") @ query, atol=1e-6
    )
    own = Teacher("any")
    assert own.query("find", "query: ", TEMPLATE) == "query: "
    assert own.query("find", "", "{instruction}: ") == "find: "
    assert own.query("", "", "{instruction}: ") == ""
    assert Teacher("any", query_template="{instruction}? ").query("find", "query: ") == "find? "


def test_a_cross_encoders_scores_are_its_logits(rows: Path, tmp_path: Path, cross_encoder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    output = tmp_path / "scored.jsonl"
    found = score_file(data_section(rows), output, Teacher(str(cross_encoder)))
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    for before, after in zip(read(rows)[:5], read(output)[:5], strict=True):
        for name in ("pos", "neg"):
            with torch.no_grad():
                pair = tokenizer(before["query"][1], before[name][0], return_tensors="pt")
                logit = float(model(**pair).logits)
            assert after[f"{name}_scores"][0] == pytest.approx(logit, abs=1e-5)
    assert found["teacher"]["score"] == "logit"
    spread = [row["pos_scores"][0] for row in read(output)]
    assert max(spread) - min(spread) > 0.1


def test_a_killed_cross_encoder_goes_on(
    rows: Path, tmp_path: Path, cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PAIRS", 16)
    data, teacher = data_section(rows), Teacher(str(cross_encoder))
    score_file(data, tmp_path / "whole.jsonl", teacher)
    real, calls = np.save, []

    def stopping(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(np, "save", stopping)
    output = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        score_file(data, output, teacher)
    assert not output.exists()
    assert len(list((tmp_path / "part.jsonl.progress").glob("pairs-*.npy"))) == 2
    with pytest.raises(InputError, match="another teacher"):
        score_file(data, output, Teacher(str(cross_encoder), max_tokens=8))
    score_file(data, output, teacher)
    assert len(calls) == 6  # of 5 parts, the third twice
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_vectors_are_found_again_by_their_text(rows: Path, tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "teacher"
    score_file(data_section(rows), tmp_path / "scored.jsonl", Teacher(str(checkpoint)), vectors=folder)
    table = load_table(data_section(rows))
    vectors, embedder = TeacherVectors(folder, table), load_embedder(checkpoint)
    assert vectors.dimension == 32
    assert vectors.record["score"] == "cosine"
    ids = np.array([table.query[3], table.positives[3][0], table.negatives[7][0]])
    prompt, question = table.texts[ids[0]]
    expected = [embedder.encode([question], prompt=prompt)[0]]
    expected += [embedder.encode([table.texts[text][1]], prompt="")[0] for text in ids[1:]]
    np.testing.assert_allclose(vectors[ids], expected, atol=1e-6)
    rows.write_text(rows.read_text() + '{"query": "a new one", "pos": ["red cat"], "neg": []}\n')
    with pytest.raises(InputError, match=r"2 of \d+ texts have no vector, the first is 'a new one'"):
        TeacherVectors(folder, load_table(data_section(rows)))
    for name in ("keys.npy", "vectors.npy", "teacher.json"):
        file = folder / name
        flip(file, file.stat().st_size // 2)
        with pytest.raises(
            InputError, match=r"changed after it was written|sums are others|not JSON|not UTF-8"
        ):
            TeacherVectors(folder, table)
        flip(file, file.stat().st_size // 2)
    with pytest.raises(InputError, match="no teacher's vectors lie here"):
        TeacherVectors(tmp_path, table)


def test_bad_input_is_refused_before_work(
    rows: Path, tmp_path: Path, checkpoint: Path, cross_encoder: Path, tiny_tokenizer: Path
) -> None:
    def rembed(*words: object) -> str:
        result = CliRunner().invoke(app, ["data", "score", *map(str, words)])
        assert result.exit_code == 2, result.output
        return result.output

    output = tmp_path / "out.jsonl"
    assert "names no model" in rembed("./absent", rows, "-o", output)
    assert "no such file or folder" in rembed(checkpoint, tmp_path / "none.jsonl", "-o", output)
    assert "JSON Lines" in rembed(checkpoint, rows, "-o", tmp_path / "out.txt")
    assert "no vectors" in rembed("bm25", rows, "-o", output, "--vectors", tmp_path / "v")
    assert "no vectors of single texts" in rembed(
        cross_encoder, rows, "-o", output, "--vectors", tmp_path / "v"
    )
    assert "must contain {instruction}" in rembed(checkpoint, rows, "-o", output, "--query-template", "x")
    assert "give one of the two" in rembed(
        checkpoint, rows, "-o", output, "--query-template", "{instruction}", "--query-prompt", "q"
    )
    assert "this is there already" in rembed(checkpoint, rows, "-o", output, "--vectors", tmp_path)
    assert not output.exists()
    broken = tmp_path / "broken"
    shutil.copytree(cross_encoder, broken)
    settings = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**settings, "hidden_size": 64}))
    assert "cannot load the cross-encoder" in rembed(broken, rows, "-o", output)
    several = write_cross_encoder(tmp_path / "several", tiny_tokenizer, labels=3)
    output = tmp_path / "other.jsonl"
    assert "it gives 3 numbers a pair, not one score" in rembed(several, rows, "-o", output)


def test_bm25_is_a_teacher_too(rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    found = score_file(data_section(rows), tmp_path / "scored.jsonl", Teacher("bm25"))
    assert found["mean_positive_score"] > found["mean_negative_score"]
