"""The code of a model card. It is run as it stands on the card before anything is uploaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

from reasoning_embedding.files import read_json

SENTENCE_TRANSFORMERS = "sentence-transformers"
TRANSFORMERS = "transformers"
#: Titles of the card's two sections of code.
TITLES = {SENTENCE_TRANSFORMERS: "With sentence-transformers", TRANSFORMERS: "With transformers alone"}

_QUERIES = ["what is attention?"]
_DOCUMENTS = ["Attention weighs the states of other tokens.", "A fox sleeps near the river."]


def snippets(folder: Path, repo: str, revision: str) -> dict[str, str]:
    """Return the code that embeds with an exported model: by library, as it is printed on the card.

    Parameters
    ----------
    folder : Path
        A checkpoint; its prompts, pooling and dtype decide what the code says.
    repo : str
        The name it will have on the Hub.
    revision : str
        ``main`` is left out of the code.
    """
    prompts = read_json(folder / "config_sentence_transformers.json", default={}).get("prompts", {})
    include = bool(read_json(folder / "1_Pooling" / "config.json", default={}).get("include_prompt", True))
    plain = str(read_json(folder / "config.json", default={}).get("dtype") or "float32") == "float32"
    name = next((name for name in ("query", *prompts) if prompts.get(name)), None)
    where = literal(repo) + ("" if revision == "main" else f", revision={literal(revision)}")
    in_float32 = "" if plain else ', model_kwargs={"dtype": "float32"}'
    queries, documents = literal(_QUERIES), literal(_DOCUMENTS)
    first = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f"model = SentenceTransformer({where}{in_float32})",
        f"queries = model.encode({queries}{f', prompt_name={literal(name)}' if name else ''})",
        f"documents = model.encode({documents})",
        "print(model.similarity(queries, documents))",
    ]
    exclude = [
        "    if prompt:  # its tokens are attended to, but do not count in the mean",
        '        tokens = tokenizer(prompt)["input_ids"]',
        "        kept[:, : len(tokens) - (tokens[-1] in tokenizer.all_special_ids)] = 0",
    ]
    second = [
        "import torch",
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({where})",
        f"model = AutoModel.from_pretrained({where}{'' if plain else ', dtype=torch.float32'}).eval()",
        "",
        "",
        'def embed(texts, prompt=""):',
        "    batch = tokenizer(",
        '        [prompt + text for text in texts], padding=True, truncation=True, return_tensors="pt"',
        "    )",
        '    kept = batch["attention_mask"].clone()',
        *([] if include else exclude),
        "    with torch.no_grad():",
        '        states = model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state',
        "    mean = (states * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True)",
        "    return torch.nn.functional.normalize(mean, dim=-1)",
        "",
        "",
        f"queries = embed({queries}{f', prompt={literal(prompts[name])}' if name else ''})",
        f"documents = embed({documents})",
        "print(queries @ documents.T)",
    ]
    return {SENTENCE_TRANSFORMERS: "\n".join(first), TRANSFORMERS: "\n".join(second)}


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
