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
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPOSITORY = Path(__file__).resolve().parents[1]
#: Words of the tiny tokenizer, after its special tokens; anything else is ``<unk>``.
TINY_WORDS = """
Instruct: Query: find the answer where what who is was a an of in to and or not by with on for
red green blue cat dog bird fish fox tree river stone city king queen moon sun star sea road house
runs jumps sleeps eats sees likes makes takes gives old new big small fast slow hot cold light dark
0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 . , : ; ? ! + - = ( )
"""


# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


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


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of about 130 entries: it splits at white space and punctuation, pads right."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary: dict[str, int] = {
        word: index
        for index, word in enumerate(dict.fromkeys(("<pad>", "<unk>", "<eos>", *TINY_WORDS.split())))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    # A word keeps its colon, so that the parts of the default prompt are one token each.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+:?|[^\w\s]"), "removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        padding_side="right",
        model_max_length=512,
    )


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny tokenizer, loadable with ``AutoTokenizer.from_pretrained``."""
    folder = tmp_path_factory.mktemp("tiny_tokenizer")
    build_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer causal Qwen3 with the tiny tokenizer: what a lineage's stage looks like."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("tiny_backbone")
    tokenizer = build_tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
