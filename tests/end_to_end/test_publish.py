"""Train, publish every step to a Hub on loopback, download in another process, embed the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from reasoning_embedding.checkpoints.embedder import load_embedder
from tests.damage import damaged_files, is_refused, reading
from tests.factories import flip
from tests.hub_server import HubServer

REPO = "lab/tiny"
TEXTS = ["the red fox jumps", "find a river", "king and queen , 3 + 4 = 7"]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("PUBLISH_TOKEN", server.token)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    small_run: Callable[..., dict[str, Any]],
    rembed: Callable[..., Result],
) -> Path:
    """A run of six steps."""
    folder = tmp_path_factory.mktemp("publish")
    settings = small_run(folder, "tiny", learning_rate=1e-2)
    settings["data"]["sources"][0]["license"] = "cc-by-4.0"
    (folder / "run.yaml").write_text(json.dumps(settings))
    rembed("train", folder / "run.yaml")
    return folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def said(run: Path, hub: HubServer, rembed: Callable[..., Result]) -> dict[str, str]:
    """What the verb says: dry, with --push, and once more."""
    options = f"--repo {REPO} --all-steps --token-env PUBLISH_TOKEN --license mit"
    words = ("publish", run, *options.split())
    dry = rembed(*words).output
    assert hub.requests == []
    return {"dry": dry, "push": rembed(*words, "--push").output, "again": rembed(*words, "--push").output}


def test_a_dry_run_verifies_and_uploads_nothing(said: dict[str, str], run: Path) -> None:
    assert "verifying step-000000, step-000003, step-000006, main in a fresh process" in said["dry"]
    for library in ("sentence-transformers", "transformers"):
        assert f"the card's code for {library} gives the trainer's embeddings" in said["dry"]
    assert "nothing was uploaded: --push" in said["dry"]
    assert "model.safetensors" in said["dry"]
    assert "branches: step-000000, step-000003, step-000006" in said["dry"]
    assert str(run / "publish" / "lab" / "tiny" / "main" / "README.md") in said["dry"]
    record = json.loads((run / "publish" / "lab" / "tiny" / "ledger.json").read_text())["revisions"]
    differences = [value for entry in record.values() for value in entry["verified"]["differences"].values()]
    assert len(differences) == 8
    assert max(differences) <= 1e-5


def test_what_is_verified_is_uploaded_once(said: dict[str, str], hub: HubServer) -> None:
    assert "verifying" not in said["push"]
    assert f"published: {hub.url}/{REPO}" in said["push"]
    assert said["again"].count("complete already") == 4
    readme = hub.repos[REPO].files()["README.md"].decode()
    assert "| rows.jsonl | cc-by-4.0 |" in readme
    assert "\nlicense: mit\n" in readme.split("---\n")[1]


def test_the_token_is_nowhere(said: dict[str, str], run: Path, hub: HubServer) -> None:
    assert not any(hub.token in output for output in said.values())
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert not any(hub.token.encode() in path.read_bytes() for path in files)
    assert not any(
        hub.token.encode() in c for commit in hub.repos[REPO].commits.values() for c in commit.files.values()
    )


def _elsewhere(code: str, hub: HubServer, cache: Path, *arguments: object) -> str:
    """Run code in a process that knows only the Hub's address."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PUBLISH_"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache)}
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=cache)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_what_is_downloaded_embeds_as_it_was_trained(
    said: dict[str, str], run: Path, hub: HubServer, tmp_path: Path
) -> None:
    code = """
import sys
from huggingface_hub import snapshot_download
for revision in ("main", "step-000003"):
    snapshot_download(sys.argv[1], revision=revision, local_dir=revision)
"""
    _elsewhere(code, hub, tmp_path, REPO)
    vectors = {}
    for name, step in (("main", 6), ("step-000003", 3)):
        trained = load_embedder(run / "checkpoints" / f"step-{step:06d}")
        prompt = trained.prompts["query"]
        vectors[name] = load_embedder(tmp_path / name).encode(TEXTS, prompt=prompt)
        np.testing.assert_array_equal(vectors[name], trained.encode(TEXTS, prompt=prompt))
    assert np.abs(vectors["main"] - vectors["step-000003"]).max() > 1e-4


def test_a_byte_of_any_file(said: dict[str, str], run: Path, rembed: Callable[..., Result]) -> None:
    """An exported model is opened as it was exported, or refused; the record of a release too."""
    folder = run / "publish" / "lab" / "tiny" / "main"
    wanted, unread = load_embedder(folder).encode(TEXTS), set()
    for file in damaged_files(folder):
        found = reading(lambda: load_embedder(folder).encode(TEXTS))
        if not is_refused(found):
            assert np.array_equal(found, wanted), file
            unread.add(file.name)
    assert unread <= {"README.md", "checkpoints.jsonl"}
    record = folder.parent / "ledger.json"
    flip(record, record.stat().st_size // 2)
    output = rembed("publish", run, "--repo", REPO, code=2).output
    assert "delete it: what is complete on the Hub is recognised by its files" in output.replace("\n", " ")
    flip(record, record.stat().st_size // 2)


def test_errors_name_the_mistake(run: Path, hub: HubServer, rembed: Callable[..., Result]) -> None:
    assert "is no repository name" in rembed("publish", run, "--repo", "tiny", code=2).output
    assert "names no checkpoint" in rembed("publish", run, "--repo", REPO, "--step", "5", code=2).output
    lone = run / "checkpoints" / "step-000003"
    assert (
        "one checkpoint, not a run"
        in rembed("publish", lone, "--repo", REPO, "--step", "last", code=2).output
    )


@pytest.mark.slow
def test_the_cards_code_works_from_the_hub_as_it_stands(
    said: dict[str, str], run: Path, hub: HubServer, tmp_path: Path
) -> None:
    """Unchanged, with the repository's name, for main and for a step."""
    from reasoning_embedding.publishing.usage import snippets_of_card

    for name, step in (("main", 6), ("step-000003", 3)):
        codes = snippets_of_card(hub.repos[REPO].files(name)["README.md"].decode())
        trained = load_embedder(run / "checkpoints" / f"step-{step:06d}")
        prompt = trained.prompts["query"]
        expected = trained.encode(TEXTS, prompt=prompt)
        for library, call in (
            ("sentence-transformers", "model.encode(json.loads(sys.argv[1]), prompt=sys.argv[2]).tolist()"),
            ("transformers", "embed(json.loads(sys.argv[1]), sys.argv[2]).tolist()"),
        ):
            code = f"{codes[library]}\nimport json, sys\nprint(json.dumps({call}))"
            output = _elsewhere(code, hub, tmp_path, json.dumps(TEXTS), prompt)
            found = np.array(json.loads(output.splitlines()[-1]))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_adapters_are_published_merged(run: Path, hub: HubServer, rembed: Callable[..., Result]) -> None:
    settings = ("name=adapted", "training.lora.rank=4", "training.steps=3")
    rembed("train", run.parent.parent / "run.yaml", *settings)
    adapted = run.parent / "adapted"
    said = rembed(
        "publish", adapted, "--repo", "lab/adapted", "--token-env", "PUBLISH_TOKEN", "--push"
    ).output
    assert "verified: the card's code for transformers gives the trainer's embeddings" in said
    files = hub.repos["lab/adapted"].files()
    assert b"published with it merged into the weights" in files["README.md"]
    assert not any("adapter" in name for name in files)


@pytest.mark.slow
def test_a_run_starts_from_a_published_step(
    said: dict[str, str], run: Path, hub: HubServer, tmp_path: Path, rows: Path
) -> None:
    """A Hub id at a revision is a backbone like any other; its embeddings before training are the step's own."""
    settings = json.loads((run / "config.resolved.json").read_text())
    settings |= {
        "name": "again",
        "output_dir": str(tmp_path / "runs"),
        "backbone": {"kind": "pretrained", "path": REPO, "revision": "step-000003"},
    }
    settings["training"] |= {"steps": 1, "lora": None}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    code = "import sys; from reasoning_embedding.cli.main import main; main(['train', sys.argv[1]])"
    _elsewhere(code, hub, tmp_path, tmp_path / "run.yaml")
    first = load_embedder(tmp_path / "runs" / "again" / "checkpoints" / "step-000000").encode(TEXTS)
    np.testing.assert_array_equal(first, load_embedder(run / "checkpoints" / "step-000003").encode(TEXTS))
