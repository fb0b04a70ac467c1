"""Any embedder gives the vectors it was published with, by our forward or by sentence-transformers."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from reasoning_embedding.backbones import Embedder, load_decoder
from reasoning_embedding.checkpoints.embedder import save_checkpoint
from reasoning_embedding.checkpoints.models import LibraryEmbedder, open_embedder
from reasoning_embedding.checkpoints.references import ResolvedModel
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, write_json
from tests.factories import TINY_WORDS, write_beir, write_tiny_bert
from tests.library_models import PROMPTS, write_library_model

TEXTS = ["red cat", "the king of the old city sees a blue fish in the river", "moon", "1 + 2 = 3 ."]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A checkpoint that was written here."""
    folder = tmp_path_factory.mktemp("models") / "ours"
    save_checkpoint(folder, Embedder(*load_decoder(str(tiny_backbone))), max_tokens=64, parent=None)
    return folder


@pytest.fixture(scope="module")
def published(ours: Path) -> Path:
    """The same folder as somebody else's: nothing says where it is from."""
    folder = ours.with_name("published")
    shutil.copytree(ours, folder)
    (folder / "provenance.json").unlink()
    return folder


@pytest.fixture(scope="module")
def bert(published: Path) -> Path:
    """An encoder."""
    folder = published.with_name("bert")
    shutil.copytree(published, folder)
    return write_tiny_bert(folder)


@pytest.fixture(scope="module")
def largest(published: Path) -> Path:
    """A causal decoder whose vector holds the largest value of each dimension."""
    folder = published.with_name("last")
    shutil.copytree(published, folder)
    pooling = read_json(folder / "1_Pooling" / "config.json")
    write_json(folder / "1_Pooling" / "config.json", {**pooling, "pooling_mode": "max"})
    model = read_json(folder / "config.json")
    model.pop("is_causal", None)
    write_json(folder / "config.json", model)
    return folder


def _open(folder: Path, said: list[str] | None = None) -> Embedder | LibraryEmbedder:
    return open_embedder(ResolvedModel("it", folder), report=(said if said is not None else []).append)


def _library_vectors(folder: Path, **kwargs: object) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True, **kwargs)


def test_the_packed_forward_is_used_where_it_gives_the_models_own_vectors(
    ours: Path, published: Path
) -> None:
    said: list[str] = []
    for folder in (ours, published):
        embedder = _open(folder, said)
        assert isinstance(embedder, Embedder)
        np.testing.assert_allclose(embedder.encode(TEXTS), _library_vectors(folder), atol=2e-6)
    assert said == []


@pytest.mark.parametrize("kind", ["bert", "largest"])
def test_other_readouts_are_run_by_the_library(kind: str, request: pytest.FixtureRequest) -> None:
    folder, said = request.getfixturevalue(kind), []
    embedder = _open(folder, said)
    assert isinstance(embedder, LibraryEmbedder)
    assert len(said) == 1
    assert said[0].endswith("; sentence-transformers embeds")
    np.testing.assert_allclose(embedder.encode(TEXTS), _library_vectors(folder), atol=1e-6)
    asked = _library_vectors(folder, prompt="find the answer ")
    np.testing.assert_allclose(embedder.encode(TEXTS, prompt="find the answer "), asked, atol=1e-6)
    assert np.abs(asked - _library_vectors(folder)).max() > 1e-2


#: What somebody else published, and whether the packed forward computes it.
PUBLISHED: dict[str, dict[str, Any]] = {
    "two heads": {"bidirectional": True, "heads": [(48, "Tanh"), (20, "Identity")], "max_seq_length": 96},
    "causal, last token, end token": {"pooling": "last", "end_token": True, "padding_side": "left"},
    "weighted mean, prompt out": {
        "pooling": "weighted_mean",
        "include_prompt": False,
        "padding_side": "left",
    },
    "first token, a default prompt": {
        "pooling": "first",
        "bidirectional": True,
        "default_prompt_name": "query",
    },
    "mean of a llama, 512 tokens": {"model_type": "llama", "bidirectional": True, "max_seq_length": 512},
}


@pytest.mark.parametrize("what", PUBLISHED)
def test_scores_and_vectors_are_those_of_sentence_transformers(tmp_path: Path, what: str) -> None:
    """By its own prompts and limit, with nothing said on the command line; another limit is another score."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    from reasoning_embedding.cli.main import app

    folder = write_library_model(tmp_path / "model", **PUBLISHED[what])
    chance = random.Random(0)
    words = [word for word in TINY_WORDS.split() if word.isalpha()]
    corpus = {f"d{i}": " ".join(chance.choices(words, k=chance.choice((3, 9, 130)))) for i in range(60)}
    queries = {f"q{i}": " ".join(chance.sample(corpus[f"d{i}"].split()[:100], 3)) for i in range(30)}
    judged = {f"q{i}": {f"d{i}": 1} for i in range(30)}
    task = write_beir(
        tmp_path / "task", corpus, queries, judged, instruction="is not what its authors ask with"
    )
    library = SentenceTransformer(str(folder), device="cpu")
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, {query: set(found) for query, found in judged.items()}, ndcg_at_k=[10], batch_size=1
    )
    expected = evaluator(library)[evaluator.primary_metric]

    def score(name: str, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
        output = tmp_path / name
        words = ["evaluate", str(folder), "-t", str(task), "-o", str(output), *options]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert "sentence-transformers embeds" not in result.output, "the packed forward computes it"
        scores = json.loads((output / "scores.json").read_text())
        return scores["tasks"][0], scores["settings"]

    entry, how = score("own")
    assert entry["main_score"] == pytest.approx(expected, abs=1e-4)
    assert entry["prompts"]["default"] == PROMPTS
    assert how["max_tokens"] == PUBLISHED[what].get("max_seq_length", 512)
    assert how["prompts_from"] == "the model's own"
    assert how["readout"]["pooling"] == PUBLISHED[what].get("pooling", "mean")
    other, _ = score("other", "--query-prompt", "where is ", "--document-prompt", "", "--max-tokens", "20")
    assert other["prompts"]["default"] == {"query": "where is ", "document": ""}
    assert other["main_score"] != entry["main_score"]

    embedder = open_embedder(ResolvedModel("it", folder), report=print)
    for options in ({"prompt_name": "query"}, {"prompt_name": "document"}, {"prompt": ""}, {}):
        alone = [library.encode([text], normalize_embeddings=True, **options) for text in TEXTS]
        np.testing.assert_allclose(embedder.encode(TEXTS, **options), np.concatenate(alone), atol=2e-6)
    with pytest.raises(InputError, match="no prompt named 'passage'"):
        embedder.encode(TEXTS, prompt_name="passage")


def test_an_encoder_has_the_same_surface(bert: Path) -> None:
    embedder = _open(bert)
    embedder.prompts["query"] = "find "
    embedder.default_prompt_name = "query"
    np.testing.assert_array_equal(embedder.encode(TEXTS), embedder.encode(TEXTS, prompt="find "))
    np.testing.assert_array_equal(embedder.encode(TEXTS), embedder.encode(TEXTS, prompt_name="query"))
    assert np.abs(embedder.encode(TEXTS) - embedder.encode(TEXTS, prompt="")).max() > 1e-3
    with pytest.raises(InputError, match="no prompt named 'passage'"):
        embedder.encode(TEXTS, prompt_name="passage")


def test_a_packed_forward_that_differs_is_not_believed(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, said = Embedder.encode, []
    monkeypatch.setattr(
        Embedder, "encode", lambda self, *args, **kwargs: encode(self, *args, **kwargs) + 1e-3
    )
    assert isinstance(_open(published, said), LibraryEmbedder)
    assert "the packed forward differs by 1.0e-03 (noise" in said[0]


def test_the_limit_is_the_models_own_unless_the_user_says_another(bert: Path) -> None:
    embedder = _open(bert)
    assert embedder.max_tokens == 64
    long = "red " * 100 + "cat"
    full, cut = embedder.encode([long], max_tokens=512), embedder.encode([long], max_tokens=20)
    assert np.abs(full - cut).max() > 1e-4
    own = embedder.encode([long])
    np.testing.assert_array_equal(own, embedder.encode([long], max_tokens=64))
    assert np.abs(full - own).max() > 1e-4
    with pytest.raises(InputError, match="positions for 512 tokens, fewer than 513"):
        embedder.encode([long], max_tokens=513)


def test_progress_is_told_and_nothing_is_a_matrix(bert: Path) -> None:
    embedder, told = _open(bert), []
    embedder.encode(TEXTS, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 4)]
    assert embedder.encode([]).shape == (0, embedder.dimension)


def test_a_language_model_is_read_as_step_0_of_a_run_and_that_is_said(tiny_backbone: Path) -> None:
    said: list[str] = []
    embedder = _open(tiny_backbone, said)
    expected = Embedder(*load_decoder(str(tiny_backbone), bidirectional=True)).encode(TEXTS)
    np.testing.assert_array_equal(embedder.encode(TEXTS), expected)
    causal = Embedder(*load_decoder(str(tiny_backbone), bidirectional=False)).encode(TEXTS)
    assert np.abs(causal - expected).max() > 1e-3
    assert "a language model, not an embedder" in said[0]
    assert "bidirectional attention, the mean" in said[0]
    with pytest.raises(InputError, match="a language model, not an embedder"):
        open_embedder(ResolvedModel("it", tiny_backbone))  # nobody to tell


def test_a_folder_without_a_model_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model lies here"):
        _open(tmp_path)


def test_a_damaged_model_of_others_is_an_input_error(tmp_path: Path, bert: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot load the model"):
        _open(folder)


@pytest.mark.parametrize("kind", ["bert", "published"])
def test_evaluate_asks_a_model_of_others_as_its_authors_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, request: pytest.FixtureRequest
) -> None:
    """Whichever forward embeds; what the user says comes first."""
    from reasoning_embedding.cli.main import app

    plain = request.getfixturevalue(kind)

    monkeypatch.chdir(tmp_path)
    task = write_beir(tmp_path / "tiny", instruction="find the answer")
    asking = tmp_path / "asking"
    shutil.copytree(plain, asking)
    settings = read_json(asking / "config_sentence_transformers.json")
    settings["prompts"] = {"query": "where is ", "document": ""}
    write_json(asking / "config_sentence_transformers.json", settings)

    def scored(folder: Path, *words: str) -> dict:
        output = tmp_path / f"scores-{folder.name}-{len(words)}"
        result = CliRunner().invoke(
            app, ["evaluate", str(folder), "-t", str(task), "-o", str(output), *words]
        )
        assert result.exit_code == 0, result.output
        assert ("sentence-transformers embeds" in result.output) is (kind == "bert")
        [entry] = json.loads((output / "scores.json").read_text())["tasks"]
        return entry

    assert scored(plain)["prompts"]["default"] == {"query": "", "document": ""}
    assert scored(asking)["prompts"]["default"] == {"query": "where is ", "document": ""}
    (tmp_path / "said.json").write_text(json.dumps({"tiny": "who was"}))
    said = scored(asking, "--instructions", str(tmp_path / "said.json"))
    assert "who was" in said["prompts"]["default"]["query"]


def test_evaluate_needs_a_folder_for_a_model_of_others(tmp_path: Path, bert: Path) -> None:
    from reasoning_embedding.cli.main import app

    task = write_beir(tmp_path / "tiny")
    result = CliRunner().invoke(app, ["evaluate", str(bert), "-t", str(task)])
    assert result.exit_code == 2
    assert "name one: -o FOLDER" in result.output
