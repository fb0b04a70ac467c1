"""The code of a model card. It is run as it stands on the card before anything is uploaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from reasoning_embedding.backbones import activation_name, read_readout
from reasoning_embedding.backbones.readout import SavedReadout
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

SENTENCE_TRANSFORMERS = "sentence-transformers"
TRANSFORMERS = "transformers"
#: Titles of the card's two sections of code.
TITLES = {SENTENCE_TRANSFORMERS: "With sentence-transformers", TRANSFORMERS: "With transformers alone"}

_OF_DOCUMENTS = ("document", "passage")
_WITHOUT_PROMPT = [
    "    if prompt:  # its tokens are attended to, but not pooled",
    '        tokens = tokenizer(prompt)["input_ids"]',
    "        kept[:, : len(tokens) - (tokens[-1] in tokenizer.all_special_ids)] = 0",
]
#: The vector before heads and length, of texts padded on the right.
_POOLED = {
    "mean": ["    pooled = (states * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True)"],
    "last": ["    pooled = states[torch.arange(len(texts)), kept.sum(1) - 1]"],
    "first": ["    pooled = states[torch.arange(len(texts)), kept.argmax(1)]"],
    "weighted_mean": [
        "    weights = kept * torch.arange(1, kept.shape[1] + 1)",
        "    pooled = (states * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)",
    ],
}
_QUERIES = ["what is attention?"]
_DOCUMENTS = ["Attention weighs the states of other tokens.", "A fox sleeps near the river."]


def snippets(folder: Path, repo: str, revision: str) -> dict[str, str]:
    """Return the code that embeds with an exported model: by library, as it is printed on the card.

    Parameters
    ----------
    folder : Path
        A checkpoint; its readout, prompts and dtype decide what the code says.
    repo : str
        The name it will have on the Hub.
    revision : str
        ``main`` is left out of the code.

    Raises
    ------
    InputError, ContractError
        If the folder's readout cannot be read.
    """
    saved = read_readout(str(folder))
    if saved is None:
        raise InputError("no embedder lies here", where=str(folder), todo="name a checkpoint of a run")
    where = literal(repo) + ("" if revision == "main" else f", revision={literal(revision)}")
    plain = str(read_json(folder / "config.json", default={}).get("dtype") or "float32") == "float32"
    return {
        SENTENCE_TRANSFORMERS: _with_sentence_transformers(saved, where, plain=plain),
        TRANSFORMERS: _with_transformers(saved, where, plain=plain),
    }


def asked_prompt(saved: SavedReadout, side: Literal["query", "document"]) -> str | None:
    """Return the name of the prompt that a side's texts are embedded with; None where they need none.

    A model without a query prompt may have one for all texts, or for a task: it is taken for queries.
    """
    others = (name for name in saved.prompts if name not in _OF_DOCUMENTS)
    names = _OF_DOCUMENTS if side == "document" else ("query", *others)
    name = next((name for name in names if saved.prompts.get(name)), None)
    if (
        name is None and saved.default_prompt_name is not None
    ):  # without a name the default would be put before it
        name = next((name for name in names if name in saved.prompts), None)
    return name


def _with_sentence_transformers(saved: SavedReadout, where: str, *, plain: bool) -> str:
    in_float32 = "" if plain else ', model_kwargs={"dtype": "float32"}'
    unit = "" if saved.readout.normalize else ", normalize_embeddings=True"

    def encode(texts: list[str], side: Literal["query", "document"]) -> str:
        name = asked_prompt(saved, side)
        asked = "" if name is None else f", prompt_name={literal(name)}"
        return f"model.encode({literal(texts)}{asked}{unit})"

    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f"model = SentenceTransformer({where}{in_float32})",
        f"queries = {encode(_QUERIES, 'query')}",
        f"documents = {encode(_DOCUMENTS, 'document')}",
        "print(model.similarity(queries, documents))",
    ]
    return "\n".join(lines)


def _with_transformers(saved: SavedReadout, where: str, *, plain: bool) -> str:
    readout = saved.readout
    counted = not readout.include_prompt and readout.pooling != "last"

    def embed(texts: list[str], side: Literal["query", "document"]) -> str:
        prompt = saved.prompts.get(asked_prompt(saved, side) or saved.default_prompt_name or "")
        return f"embed({literal(texts)}{f', prompt={literal(prompt)}' if prompt else ''})"

    lines = [
        "import torch",
        *(["from safetensors.torch import load_file"] if readout.heads else []),
        "from transformers import AutoModel, AutoTokenizer",
        *(["from transformers.utils import cached_file"] if readout.heads else []),
        "",
        # Whatever side the tokenizer's class prefers: the prompt's tokens and the last one are found from the left.
        f'tokenizer = AutoTokenizer.from_pretrained({where}, padding_side="right")',
        f"model = AutoModel.from_pretrained({where}{'' if plain else ', dtype=torch.float32'}).eval()",
        *(
            f"head_{place} = load_file(cached_file({_file_of(where, f'{name}/model.safetensors')}))"
            for place, name in enumerate(saved.head_folders, start=1)
        ),
        "",
        "",
        'def embed(texts, prompt=""):',
        "    batch = tokenizer(",
        '        [prompt + text for text in texts], padding=True, truncation=True, return_tensors="pt"',
        "    )",
        '    kept = batch["attention_mask"].clone()',
        *(_WITHOUT_PROMPT if counted else []),
        "    with torch.no_grad():",
        '        states = model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state',
        *_POOLED[readout.pooling],
    ]
    for place, head in enumerate(readout.heads, start=1):
        bias = f', head_{place}["linear.bias"].float()' if head.bias else ""
        lines.append(
            f'    pooled = torch.nn.functional.linear(pooled, head_{place}["linear.weight"].float(){bias})'
        )
        if head.activation != "identity":
            lines.append(f"    pooled = {activation_name(head.activation)}()(pooled)")
    lines += [
        "    return torch.nn.functional.normalize(pooled, dim=-1)",
        "",
        "",
        f"queries = {embed(_QUERIES, 'query')}",
        f"documents = {embed(_DOCUMENTS, 'document')}",
        "print(queries @ documents.T)",
    ]
    return "\n".join(lines)


def _file_of(where: str, name: str) -> str:
    """Arguments of ``cached_file``: the file's name stands between the repository's and the revision."""
    repo, comma, revision = where.partition(", revision=")
    return f"{repo}, {literal(name)}{comma}{revision}"


def literal(value: str | list[str]) -> str:
    """Return a string, or a list of them, as Python writes it, in double quotes and on one line."""
    return json.dumps(value, ensure_ascii=False)


def snippets_of_card(card: str) -> dict[str, str]:
    """Take the code back out of a card: the Python block below each of :data:`TITLES`."""
    found = {}
    for library, title in TITLES.items():
        match = re.search(
            rf"^### {re.escape(title)}\n\n(?P<fence>`{{3,}})python\n(?P<code>.*?)\n(?P=fence)$",
            card,
            re.MULTILINE | re.DOTALL,
        )
        if match:
            found[library] = match["code"]
    return found
