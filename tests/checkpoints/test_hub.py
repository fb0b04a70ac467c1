"""Models of the Hub by OWNER/NAME@REVISION, from a Hub on loopback: scored, embedded, refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from reasoning_embedding.backbones import Embedder, load_decoder
from reasoning_embedding.checkpoints.embedder import save_checkpoint
from reasoning_embedding.checkpoints.models import open_embedder
from reasoning_embedding.checkpoints.references import ResolvedModel, resolve
from reasoning_embedding.cli.main import app
from reasoning_embedding.errors import InputError, SetupError
from tests.factories import run_settings, write_lines, write_tiny_backbone
from tests.hub_server import Commit, HubServer

REPO = "lab/tiny"
WORDS = "cat dog fish bird fox tree river stone city king queen moon".split()


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "provenance.json"
    }


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two embedders of one shape and other weights."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("versions")
        backbone = write_tiny_backbone(folder / "backbone", seed=seed)
        save_checkpoint(folder / "model", Embedder(*load_decoder(str(backbone))), max_tokens=64, parent=None)
        folders.append(folder / "model")
    return folders


@pytest.fixture
def hub(versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with one model: branch ``main``, which holds the second version, and tag ``v1``, the first."""
    with HubServer() as server:
        repo = server.create(REPO)
        first = repo.add("main", Commit(_files(versions[0]), "first", "me", repo.branches["main"]))
        repo.tags["v1"] = first
        repo.add("main", Commit(_files(versions[1]), "second", "me", first))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        urls = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", urls)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield server


def _vectors(folder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(["red cat"], normalize_embeddings=True)


def test_a_revision_is_the_model_it_names(hub: HubServer, versions: list[Path]) -> None:
    repo = hub.repos[REPO]
    named = {REPO: 1, f"{REPO}@main": 1, f"{REPO}@v1": 0, f"{REPO}@{repo.tags['v1']}": 0}
    for reference, version in named.items():
        model = resolve(reference)
        assert model.commit == (repo.tags["v1"] if version == 0 else repo.branches["main"])
        embedder = open_embedder(model)
        assert isinstance(embedder, Embedder), "the packed forward gives its vectors, so it is used"
        np.testing.assert_allclose(embedder.encode(["red cat"]), _vectors(versions[version]), atol=2e-6)
    assert np.abs(_vectors(versions[0]) - _vectors(versions[1])).max() > 1e-3


def _rembed(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_model_of_the_hub_is_scored_and_embedded(
    hub: HubServer, versions: list[Path], beir: Path, tmp_path: Path
) -> None:
    found = {}
    for number, reference in enumerate((f"{REPO}@v1", f"{REPO}@main", str(versions[0]))):
        output = tmp_path / f"scores-{number}"
        result = _rembed("evaluate", reference, "-t", beir, "-o", output)
        assert result.exit_code == 0, result.output
        found[reference] = json.loads((output / "scores.json").read_text())
    first, second, folder = found.values()
    assert first["tasks"][0]["main_score"] == folder["tasks"][0]["main_score"]
    assert first["revision"] != second["revision"], "two revisions are never taken for one another"
    (tmp_path / "texts.txt").write_text("red cat\n")
    result = _rembed("embed", f"{REPO}@v1", tmp_path / "texts.txt", "-o", tmp_path / "out.npy")
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), _vectors(versions[0]), atol=2e-6)
    result = _rembed("evaluate", f"{REPO}@v1", "-t", beir)
    assert result.exit_code == 2
    assert "name one: -o FOLDER" in result.output


MISTAKES = {
    "lab/absent": (2, "the Hub has no model lab/absent"),
    f"{REPO}@v9": (2, f"{REPO} has no revision 'v9' on the Hub"),
}


@pytest.mark.parametrize("reference", MISTAKES)
@pytest.mark.parametrize("verb", ["embed", "evaluate"])
def test_what_the_hub_does_not_have_is_named(
    hub: HubServer, beir: Path, tmp_path: Path, reference: str, verb: str
) -> None:
    code, said = MISTAKES[reference]
    (tmp_path / "texts.txt").write_text("red cat\n")
    words = ["-t", beir] if verb == "evaluate" else [tmp_path / "texts.txt"]
    name = "out" if verb == "evaluate" else "out.npy"
    result = _rembed(verb, reference, *words, "-o", tmp_path / name)
    assert result.exit_code == code, result.output
    assert said in " ".join(result.output.split())


def test_a_hub_that_cannot_be_reached_is_the_machines_fault(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = resolve(f"{REPO}@v1").files
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve(f"{REPO}@v1").files == kept, "what was downloaded is there without the Hub"
    with pytest.raises(SetupError, match="no copy of it is kept here"):
        _ = resolve("lab/other@main").files


def test_a_folder_has_no_revisions(
    versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="a folder has no revisions, so 'main' names nothing"):
        resolve(f"{versions[0]}@main")
    shutil.copytree(versions[0], tmp_path / "models" / "tiny")  # which looks like an id of the Hub
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a folder has no revisions"):
        resolve("models/tiny@v1")
    with pytest.raises(InputError, match="a folder has no revisions"):
        ResolvedModel("it", versions[0], revision="v1")
    with pytest.raises(InputError, match="a folder has no revisions"):
        load_decoder(str(versions[0]), revision="v1")  # backbone.path with backbone.revision
    result = _rembed(
        "data",
        "mine",
        _rows(tmp_path),
        "-o",
        tmp_path / "mined.jsonl",
        "--model",
        versions[0],
        "--revision",
        "v1",
    )
    assert result.exit_code == 2
    assert "a folder has no revisions" in " ".join(result.output.split())


def _rows(folder: Path) -> Path:
    rows = [{"query": f"red {word}", "pos": [f"a red {word}"]} for word in WORDS]
    return write_lines(folder / "rows.jsonl", rows)


def test_other_verbs_take_a_revision_too(hub: HubServer, tmp_path: Path) -> None:
    words = ["data", "mine", _rows(tmp_path), "-k", "2", "--positive-share", "0"]
    result = _rembed(*words, "-o", tmp_path / "mined.jsonl", "--model", REPO, "--revision", "v1")
    assert result.exit_code == 0, result.output
    result = _rembed(*words, "-o", tmp_path / "none.jsonl", "--model", f"{REPO}@v9")
    assert result.exit_code == 2
    assert "has no revision 'v9' on the Hub" in " ".join(result.output.split())
    lines = ["kind: merge", "name: hub", f"models: [{REPO}@v1, {REPO}@main]", "method: {kind: slerp}"]
    (tmp_path / "merge.yaml").write_text("\n".join(lines) + "\n")
    result = _rembed("merge", tmp_path / "merge.yaml", f"output_dir={tmp_path / 'merges'}")
    assert result.exit_code == 0, result.output
    merged = open_embedder(resolve(str(tmp_path / "merges" / "hub" / "models" / "slerp")))
    assert merged.encode(["red cat"]).shape == (1, 32)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "probe.jsonl", [{"text": f"red {word} and a {word}"} for word in WORDS])


@pytest.mark.slow
def test_models_of_the_hub_are_analysed_and_tracked(hub: HubServer, probe: Path, tmp_path: Path) -> None:
    import pandas as pd

    result = _rembed("analyze", f"{REPO}@v1", f"{REPO}@main", "--probe", probe, "-o", tmp_path / "analysis")
    assert result.exit_code == 0, result.output
    words = ["track", f"{REPO}@v1", f"{REPO}@main", "--probe", probe, "-o", tmp_path / "track.parquet"]
    result = _rembed(*words)
    assert result.exit_code == 0, result.output
    assert {0, 1} <= set(pd.read_parquet(tmp_path / "track.parquet")["step"])
    result = _rembed(*words[:2], f"{REPO}@v9", *words[3:])
    assert result.exit_code == 2
    assert f"{REPO}@v9: cannot load this checkpoint: v9 is not a valid git identifier" in result.output


def test_two_revisions_are_compared_query_by_query(hub: HubServer, beir: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--compare", f"{REPO}@v1", f"{REPO}@main", "-t", beir, "-o", tmp_path / "compared"]
    result = _rembed(*words)
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "compared").rglob("*.csv"))


def test_a_model_of_the_hub_is_a_teacher(hub: HubServer, versions: list[Path], tmp_path: Path) -> None:
    scored = []
    for number, reference in enumerate((f"{REPO}@v1", versions[0])):
        output = tmp_path / f"scored-{number}.jsonl"
        result = _rembed("data", "score", reference, _rows(tmp_path), "-o", output)
        assert result.exit_code == 0, result.output
        scored.append([json.loads(line)["pos_scores"] for line in output.read_text().splitlines()])
    np.testing.assert_allclose(scored[0], scored[1], atol=2e-6)


def test_a_run_starts_from_a_revision(hub: HubServer, tmp_path: Path) -> None:
    settings = run_settings(
        name="adapted",
        output_dir=str(tmp_path / "runs"),
        backbone={"kind": "pretrained", "path": REPO, "revision": "v1"},
        data={"sources": [{"kind": "files", "path": str(_rows(tmp_path))}], "negatives": 0},
        training={"batch_size": 4, "steps": 2, "precision": "fp32", "threads": 1},
        logging={"tensorboard": False},
    )
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    result = _rembed("train", tmp_path / "run.yaml")
    assert result.exit_code == 0, result.output
    start = open_embedder(resolve(str(tmp_path / "runs" / "adapted") + "@0"))
    np.testing.assert_allclose(
        start.encode(["red cat"]), open_embedder(resolve(f"{REPO}@v1")).encode(["red cat"]), atol=2e-6
    )


@pytest.mark.slow
def test_what_was_made_here_is_published_again_and_nothing_else(
    hub: HubServer, versions: list[Path], tmp_path: Path
) -> None:
    """Of a model of others nothing says what it was made of, and its card would be empty."""
    result = _rembed("publish", f"{REPO}@v1", "--repo", "me/copy")
    assert result.exit_code == 2
    assert "provenance" in result.output
    ours = _files(versions[0]) | {"provenance.json": (versions[0] / "provenance.json").read_bytes()}
    hub.create("lab/ours").add("main", Commit(ours, "first", "me", None))
    result = _rembed("publish", "lab/ours@main", "--repo", "me/copy")
    assert result.exit_code == 0, result.output
    exported = tmp_path / "publish" / "me" / "copy" / "main"
    np.testing.assert_allclose(_vectors(exported), _vectors(versions[0]), atol=2e-6)
    assert "nothing was uploaded" in result.output
