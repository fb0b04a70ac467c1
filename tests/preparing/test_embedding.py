"""Vectors of files of texts: every format in and out, stopped and called again, and by several ranks."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_embedding.backbones.compression import Compression, ranges_of
from reasoning_embedding.checkpoints.models import open_embedder
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.data.named_texts import TextSource
from reasoning_embedding.data.vector_files import load_vectors
from reasoning_embedding.errors import InputError
from reasoning_embedding.preparing import embedding
from reasoning_embedding.preparing.embedding import EmbedOptions, embed_file
from tests.factories import TINY_WORDS, flip, write_lines, write_tiny_backbone
from tests.processes import Forked, torchrun, verb

WORDS = TINY_WORDS.split()[8:60]


def _said(line: str) -> None:
    """Somebody must be told how a language model is read."""


@pytest.fixture(scope="module")
def model(tiny_backbone: Path) -> str:
    return str(tiny_backbone)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(23)]


@pytest.fixture(scope="module")
def expected(model: str, texts: list[str]) -> np.ndarray:
    return open_embedder(resolve(model), report=_said).encode(texts)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "WINDOW_TEXTS", 4)


def _lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def _json(path: Path, texts: list[str]) -> Path:
    return write_lines(path, [{"id": f"d-{i}é", "text": text} for i, text in enumerate(texts)])


def _csv(path: Path, texts: list[str]) -> Path:
    path.write_text("id,body\n" + "".join(f"d-{i}é,{text}\n" for i, text in enumerate(texts)))
    return path


def _parquet(path: Path, texts: list[str]) -> Path:
    pq.write_table(pa.table({"id": [10 * i for i in range(len(texts))], "text": texts}), path)
    return path


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("end", [".npy", ".parquet", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "write", "ids"),
    [
        ("texts.txt", _lines, range(23)),
        ("texts.jsonl", _json, [f"d-{i}é" for i in range(23)]),
        ("texts.csv", _csv, [f"d-{i}é" for i in range(23)]),
        ("texts.parquet", _parquet, range(0, 230, 10)),
    ],
)
def test_every_format_holds_the_vectors_and_ids_in_the_order_of_the_file(
    tmp_path: Path,
    model: str,
    texts: list[str],
    expected: np.ndarray,
    name: str,
    write: Callable[[Path, list[str]], Path],
    ids: Any,
    end: str,
) -> None:
    output = tmp_path / f"vectors{end}"
    record = embed_file(model, TextSource(write(tmp_path / name, texts)), output, report=_said)
    found, vectors = load_vectors(output)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    assert list(found) == list(ids)
    beside = json.loads((tmp_path / f"vectors{end}.json").read_text())
    assert (beside["rows"], beside["columns"], beside["entries"]) == (23, 32, "float32")
    assert (beside["model"], beside["prompt"]) == (model, "")
    assert beside["content"] == record["content"] == resolve(model).content
    assert not (tmp_path / f"vectors{end}.progress").exists()


def test_safetensors_opens_what_is_written_by_hand(tmp_path: Path, model: str, texts: list[str]) -> None:
    from safetensors import safe_open

    output = tmp_path / "v.safetensors"
    embed_file(model, TextSource(_json(tmp_path / "t.jsonl", texts)), output, report=_said)
    with safe_open(output, "np") as file:
        assert sorted(file.keys()) == ["embeddings", "id_ends", "ids"]
        assert file.get_tensor("id_ends")[-1] == len(file.get_tensor("ids"))


def test_ids_of_other_vectors_do_not_stay_beside_new_ones(
    tmp_path: Path, model: str, texts: list[str]
) -> None:
    output = tmp_path / "v.npy"
    embed_file(model, TextSource(_json(tmp_path / "t.jsonl", texts)), output, report=_said)
    assert (tmp_path / "v.ids.jsonl").exists()
    embed_file(model, TextSource(_lines(tmp_path / "t.txt", texts)), output, report=_said)
    assert not (tmp_path / "v.ids.jsonl").exists()


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("quantize", [None, "int8", "binary"])
def test_stopped_and_called_again_the_bytes_are_those_of_one_call(
    tmp_path: Path,
    model: str,
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    quantize: Any,
) -> None:
    source = TextSource(_json(tmp_path / "t.jsonl", texts))
    options = EmbedOptions(compression=Compression(16, quantize))
    for end in (".npy", ".parquet", ".safetensors"):
        whole, part = tmp_path / f"whole{end}", tmp_path / f"part{end}"
        embed_file(model, source, whole, options, report=_said)
        real, windows = embedding._Task.vectors, []

        def stopping(self: Any, *arguments: Any, real: Any = real, windows: list[int] = windows) -> Any:
            windows.append(1)
            if len(windows) == 4:
                raise KeyboardInterrupt
            return real(self, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(embedding._Task, "vectors", stopping)
            with pytest.raises(KeyboardInterrupt):
                embed_file(model, source, part, options, report=_said)
            assert not part.exists()
            assert len(list((tmp_path / f"part{end}.progress").glob("*.npz"))) == 3
            said: list[str] = []
            embed_file(model, source, part, options, report=said.append)
        assert "23 texts, 12 embedded before" in said
        assert len(windows) == 4 + 3  # six windows; three were there
        assert part.read_bytes() == whole.read_bytes()
        for ranges in tmp_path.glob("part.ranges.npy"):
            assert ranges.read_bytes() == (tmp_path / "whole.ranges.npy").read_bytes()


@pytest.mark.usefixtures("small_windows")
def test_int8_steps_lie_between_the_ranges_of_all_texts(
    tmp_path: Path, model: str, texts: list[str], expected: np.ndarray
) -> None:
    source, output = TextSource(_lines(tmp_path / "t.txt", texts)), tmp_path / "v.npy"
    kept = Compression(None, "int8")
    embed_file(model, source, output, EmbedOptions(compression=kept), report=_said)
    np.testing.assert_allclose(np.load(tmp_path / "v.ranges.npy"), ranges_of(expected), atol=2e-6)
    # Rounding decides between two steps.
    assert np.abs(np.load(output).astype(int) - kept.codes(expected, ranges_of(expected))).max() <= 1


@pytest.mark.usefixtures("small_windows")
def test_damaged_parts_and_those_of_other_texts_are_embedded_again(
    tmp_path: Path, model: str, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = TextSource(_lines(tmp_path / "t.txt", texts)), tmp_path / "v.npy"

    def stopping(*_: Any) -> None:
        raise KeyboardInterrupt

    def stopped_before_the_merge() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(embedding, "_merge", stopping)
            with pytest.raises(KeyboardInterrupt):
                embed_file(model, source, output, report=_said)

    stopped_before_the_merge()
    parts = sorted((tmp_path / "v.npy.progress").glob("*.npz"))
    flip(parts[1], -400)
    said: list[str] = []
    embed_file(model, source, output, report=said.append)
    assert any("damaged parts" in line and "4 texts" in line for line in said)
    whole = output.read_bytes()

    stopped_before_the_merge()
    _lines(source.path, ["red cat", *texts[1:]])
    embed_file(model, source, output, report=said.append)
    assert "23 texts, 19 embedded before" in said
    assert any("other texts or another model" in line for line in said)
    changed = np.load(output)
    assert output.read_bytes() != whole
    embed_file(model, source, tmp_path / "new.npy", report=_said)
    np.testing.assert_array_equal(changed, np.load(tmp_path / "new.npy"))


def test_texts_that_change_meanwhile_are_refused(
    tmp_path: Path, model: str, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TextSource(_lines(tmp_path / "t.txt", texts))
    real = embedding._survey

    def changed(*arguments: Any) -> Any:
        found = real(*arguments)
        _lines(source.path, [*texts, "red cat"])
        return found

    monkeypatch.setattr(embedding, "_survey", changed)
    with pytest.raises(InputError, match="changed while"):
        embed_file(model, source, tmp_path / "v.npy", report=_said)


def test_two_ranks_write_what_one_process_writes(tmp_path: Path, model: str, texts: list[str]) -> None:
    source = _json(tmp_path / "t.jsonl", texts)
    asked = ["embed", model, source, "--device", "cpu", "-o"]

    def alone() -> None:
        vars(embedding)["WINDOW_TEXTS"] = 4
        verb(*asked, tmp_path / "one.safetensors")

    def together() -> None:
        vars(embedding)["WINDOW_TEXTS"] = 4
        torchrun(2, *asked, tmp_path / "two.safetensors")()

    one = Forked(alone, tmp_path / "one.log")
    assert one.wait() == 0, one.said
    two = Forked(together, tmp_path / "two.log")
    assert two.wait() == 0, two.said
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    assert two.said.count("23 x 32 float32") == 1
    assert "by the first rank" in two.said


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ('{"a": "x", "b": "y"}\n', {}, r"t\.jsonl:1: which column holds the texts\? It has a, b"),
        ('{"text": "x"}\n', {"columns": ("body",)}, r"t\.jsonl:1: no column 'body'"),
        ('{"text": "x"}\n', {"id_column": "key"}, r"t\.jsonl:1: no column 'key'"),
        ('{"text": "x"}\n{"text": "  "}\n', {}, r"t\.jsonl:2: text is empty"),
        ('{"text": "x"}\n{"id": 3}\n', {}, r"t\.jsonl:2: text is not a text: found NoneType"),
        ('{"id": "x", "text": "x"}\n{"text": "y"}\n', {}, r"t\.jsonl:2: id is no id: found None"),
        ('{"text": "x"}\nnot JSON\n', {}, r"t\.jsonl:2: not JSON"),
        ("", {}, r"there is no text"),
    ],
)
def test_texts_that_cannot_be_read_are_named_before_anything_is_embedded(
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    columns: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    monkeypatch.setattr(embedding, "_embed", lambda *_: pytest.fail("embedded"))
    with pytest.raises(InputError) as error:
        embed_file(model, TextSource(path, **columns), tmp_path / "v.npy", report=_said)
    assert re.search(message, str(error.value))
    assert str(tmp_path) in str(error.value)
    assert not (tmp_path / "v.npy.progress").exists()


def test_a_title_stands_before_its_text_as_in_retrieval(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "corpus.jsonl",
        [{"_id": "a", "text": "one"}, {"_id": "b", "title": "On", "text": "two"}],
    )
    assert [(each.id, each.text) for each in TextSource(path)] == [("a", "one"), ("b", "On two")]
    assert [each.text for each in TextSource(path, ("text",))] == ["one", "two"]


def test_ids_that_are_no_whole_numbers_everywhere_are_texts(
    tmp_path: Path, model: str, texts: list[str]
) -> None:
    path = write_lines(tmp_path / "t.jsonl", [{"id": 1, "text": "a"}, {"id": "x", "text": "b"}])
    for end in (".npy", ".parquet", ".safetensors"):
        embed_file(model, TextSource(path), tmp_path / f"v{end}", report=_said)
        assert list(load_vectors(tmp_path / f"v{end}")[0]) == ["1", "x"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match=r"not written as \.csv"):
        embed_file(model, TextSource(tmp_path / "t.txt"), tmp_path / "v.csv", report=_said)
    (tmp_path / "v.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="not a file of vectors"):
        load_vectors(tmp_path / "v.npy")


@pytest.mark.slow
def test_a_million_texts_take_no_more_memory_than_a_tenth_of_them(tmp_path: Path) -> None:
    import psutil

    model, rng = write_tiny_backbone(tmp_path / "model"), np.random.default_rng(0)
    peaks = {}
    for count in (100_000, 1_000_000):
        texts = tmp_path / f"{count}.jsonl"
        with texts.open("w") as file:
            for i in range(count):
                words = " ".join(WORDS[k] for k in rng.integers(0, len(WORDS), 3 + i % 12))
                file.write(f'{{"id": "doc-{i}", "text": "{words}"}}\n')
        output = tmp_path / f"{count}.npy"
        child = Forked(lambda t=texts, o=output: verb("embed", model, t, "-o", o), tmp_path / "said.txt")
        process, peak = psutil.Process(child.pid), 0
        while child.poll() is None:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.1)
        assert child.code == 0, child.said
        assert np.load(output, mmap_mode="r").shape == (count, 32)
        peaks[count] = peak
    # Vectors, texts and tokens of all are some 300 MB; allocators keep part of what they once had.
    assert peaks[1_000_000] < peaks[100_000] + 200e6, peaks
