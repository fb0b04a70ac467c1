"""What every test shares: no network, one thread, tiny models and, where it is there, real data."""

from __future__ import annotations

import os

# Set before any test module imports torch, transformers or the hub client, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.factories import build_tiny_tokenizer, write_beir, write_tiny_backbone

REPOSITORY = Path(__file__).resolve().parents[1]

# How long an example takes says more about the machine's other work than about the code; the same examples every
# time, so that a red test is red for everyone. HYPOTHESIS_PROFILE=explore draws others.
settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """One thread where a plugin imported torch before the variable above was set."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data (its README says what it holds); tests of it are skipped where it is absent."""
    folder = Path(os.environ.get("REASONING_EMBEDDING_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "derived").is_dir():
        pytest.skip(f"no real data at {folder}; set REASONING_EMBEDDING_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def real_models() -> Path:
    """Folder of small pretrained models; tests of them are skipped where it is absent."""
    folder = os.environ.get("REASONING_EMBEDDING_MODELS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real models; REASONING_EMBEDDING_MODELS names their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny tokenizer, loadable with ``AutoTokenizer.from_pretrained``."""
    folder = tmp_path_factory.mktemp("tiny_tokenizer")
    build_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer causal Qwen3 with the tiny tokenizer; no test changes it."""
    return write_tiny_backbone(tmp_path_factory.mktemp("tiny_backbone"))


@pytest.fixture(scope="session")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a retrieval task of five documents and three queries; no test changes it."""
    return write_beir(tmp_path_factory.mktemp("beir") / "tiny")
