"""What tests are made of: settings of a run, batches, tasks and rows on disk, a tiny tokenizer and backbone.

Whatever two tests would both write by hand stands here. Libraries that take seconds to import are imported where
they are needed, so that a test of settings stays a test of settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from reasoning_embedding.config import RunConfig
    from reasoning_embedding.data import Table
    from reasoning_embedding.data.batch import Batch

#: Words of the tiny tokenizer, after its special tokens; anything else is ``<unk>``.
TINY_WORDS = """
Instruct: Query: find the answer where what who is was a an of in to and or not by with on for
red green blue cat dog bird fish fox tree river stone city king queen moon sun star sea road house
runs jumps sleeps eats sees likes makes takes gives old new big small fast slow hot cold light dark
0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 . , : ; ? ! + - = ( )
"""


# ------------------------------------------------------------------ settings


def run_settings(**sections: Any) -> dict[str, Any]:
    """What a run's YAML would say: the least that is valid, with these sections added.

    A section is laid over the one that is there, key by key, unless it is of another kind.
    """
    settings: dict[str, Any] = {
        "kind": "run",
        "name": "run",
        "backbone": {"kind": "pretrained", "path": "some/backbone"},
        "data": {"sources": [{"kind": "world"}]},
    }
    for key, value in sections.items():
        before = settings.get(key)
        over = isinstance(before, dict) and value.get("kind", before.get("kind")) == before.get("kind")
        settings[key] = {**before, **value} if over else value
    return settings


def run_config(**sections: Any) -> RunConfig:
    """:func:`run_settings`, checked."""
    from reasoning_embedding.config import RunConfig

    return RunConfig.model_validate(run_settings(**sections))


# ------------------------------------------------------------------ files


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON object a line; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[Any]:
    """The JSON values of a file of lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


#: Five documents and three queries over words that the tiny tokenizer knows.
BEIR_CORPUS = {
    "d0": "red cat dog",
    "d1": "blue fish river",
    "d2": "king of the city",
    "d3": "new moon and sun",
    "d4": "old stone house",
}
BEIR_QUERIES = {"q0": "red dog", "q1": "fish in river", "q2": "the city king"}
BEIR_JUDGED = {"q0": {"d0": 1}, "q1": {"d1": 1}, "q2": {"d2": 1}}


def write_beir(
    folder: Path,
    corpus: Mapping[str, str] = BEIR_CORPUS,
    queries: Mapping[str, str] = BEIR_QUERIES,
    judged: Mapping[str, Mapping[str, int]] = BEIR_JUDGED,
    instruction: str = "",
) -> Path:
    """Write a retrieval task as BEIR's folders hold it; `judged` gives a query's documents their grades."""
    for name, texts in (("corpus", corpus), ("queries", queries)):
        write_lines(folder / f"{name}.jsonl", [{"_id": key, "text": text} for key, text in texts.items()])
    lines = [
        f"{query}\t{document}\t{grade}\n"
        for query, grades in judged.items()
        for document, grade in grades.items()
    ]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    if instruction:
        (folder / "meta.json").write_text(json.dumps({"instruction": instruction}), encoding="utf-8")
    return folder


def flip(file: Path, place: int) -> None:
    """Change one byte of a file, whose size and time of change stay; a negative place counts from its end."""
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


# ------------------------------------------------------------------ batches


def random_batch(queries: int = 6, negatives: int = 7, *, seed: int = 0, longest: int = 14) -> Batch:
    """A batch of uneven texts of 3 to `longest` tokens, prompts before queries, and one document in two slots."""
    import numpy as np

    from reasoning_embedding.data.batch import Batch

    rng = np.random.default_rng(seed)
    texts = 2 * queries + negatives - 1
    lengths = rng.integers(3, longest, texts)
    tokens = [rng.integers(3, 100, length).astype(np.int32) for length in lengths]
    prompts = np.where(np.arange(texts) < queries, 2, 0).astype(np.int32)
    document = np.concatenate([np.arange(queries, texts), [queries]])
    return Batch.from_arrays(tokens, prompts, np.arange(queries), document)


# ------------------------------------------------------------------ rows without texts


def make_table(counts: Sequence[int], positives: int = 1, negatives: int = 0, seed: int = 0) -> Table:
    """Rows of each source, interleaved; row i has up to that many positives and negatives, all distinct; no texts."""
    import numpy as np

    from reasoning_embedding.data import Ragged, Table

    rows = sum(counts)
    rng = np.random.default_rng(seed)
    source = rng.permutation(np.repeat(np.arange(len(counts), dtype=np.int16), counts))
    lengths = [rng.integers(1, positives + 1, rows), rng.integers(0, negatives + 1, rows)]
    offsets = [np.concatenate([[0], np.cumsum(length)]) for length in lengths]
    first = [rows, rows + offsets[0][-1]]
    lists = [
        Ragged(np.arange(start, start + ends[-1], dtype=np.int32), ends)
        for start, ends in zip(first, offsets, strict=True)
    ]
    names = [f"s{number}" for number in range(len(counts))]
    return Table([], np.arange(rows, dtype=np.int32), lists[0], lists[1], source, names, {}, "")


# ------------------------------------------------------------------ a tokenizer and a backbone


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


def write_tiny_backbone(folder: Path, *, seed: int = 0) -> Path:
    """Write a two-layer causal Qwen3 with the tiny tokenizer: what a lineage's stage looks like."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

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
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_bert(folder: Path) -> Path:
    """Put a one-layer BERT of the tiny vocabulary in the place of a folder's model; its other files stay."""
    import torch
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(build_tiny_tokenizer()), **sizes)).save_pretrained(folder)
    return folder
