"""The model card: what a reader must know, in the order of their questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import step_name
from reasoning_embedding.checkpoints.scores import WHILE_TRAINING
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

from .facts import Facts, mean_score
from .markdown import fenced, table, text
from .release import MAIN
from .usage import TITLES, snippets

_INTRODUCTION = """\
Attention is bidirectional by the stock architecture's own switch, `is_causal: false` in `config.json`; no
remote code is needed.

**Minimum versions: `transformers >= 5.2`, `sentence-transformers >= 6.0`.** Earlier versions of transformers
ignore the switch without a word: attention stays causal and the embeddings are others."""

_CHECKED = """\
Both blocks were run in a fresh process before this model was uploaded, and gave the trainer's own embeddings
to within the float rounding of this model."""

_LIMITS = """\
- Texts are cut at {max_tokens} tokens, prompt included.
- Scores hold for the tasks, instructions and lengths above; other domains and languages were not measured.
- Biases and errors of the backbone and of the training data remain.
- Embeddings of other revisions of this repository, or without the prompt, are not comparable with these."""

_CITATIONS = """\
@misc{chan2026reasoning,
  title = {Do Reasoning Models Enhance Embedding Models?},
  author = {Chan, Wun Yu and Chen, Shaojin and Jing, Huihao and Lau, Kwun Hang and Li, Elton Chun-Chai and
            Wang, Zihao and Li, Haoran and Song, Yangqiu},
  year = {2026},
  eprint = {2601.21192},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2601.21192}
}

@misc{li2025tracing,
  title = {Tracing the Representation Geometry of Language Models from Pretraining to Post-training},
  author = {Li, Melody Zixuan and Agrawal, Kumar Krishna and Ghosh, Arna and Teru, Komal Kumar and
            Santoro, Adam and Lajoie, Guillaume and Richards, Blake A.},
  year = {2025},
  eprint = {2509.23024},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2509.23024}
}

@inproceedings{reimers-2019-sentence-bert,
  title = {Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks},
  author = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing},
  year = {2019},
  url = {https://arxiv.org/abs/1908.10084}
}"""

CARD = "README.md"


def write_card(facts: Facts, folder: Path) -> None:
    """Write ``README.md`` for an exported revision.

    Parameters
    ----------
    facts : Facts
        What is known.
    folder : Path
        The exported folder; its model files are there already.
    """
    sections = "\n\n".join(part for part in _sections(facts, folder) if part)
    (folder / CARD).write_text(f"---\n{_metadata(facts)}\n---\n\n{sections}\n", encoding="utf-8")


def _sections(facts: Facts, folder: Path) -> Iterator[str]:
    config = read_json(folder / "config.json")
    layers = f" of {config['num_hidden_layers']} layers" if "num_hidden_layers" in config else ""
    tokenizer = read_json(folder / "tokenizer_config.json")
    step = "" if facts.revision.step is None else f", step {facts.revision.step}"
    named = facts.record.get("run") or facts.revision.checkpoint.resolve().name
    yield f"# {text(facts.release.repo.partition('/')[2])}"
    yield (
        f"A text embedder: a {text(config['model_type'])} decoder{layers} with bidirectional attention, the mean "
        f"of its last states, unit length ({text(named)}{step}). Similarity is the cosine."
    )
    yield _INTRODUCTION
    yield "## Usage"
    for library, code in snippets(folder, facts.release.repo, facts.revision.name).items():
        yield f"### {TITLES[library]}\n\n{fenced(code, 'python')}"
    yield _CHECKED
    yield _prompts(folder)
    yield _lineage(facts)
    yield _recipe(facts)
    yield _data(facts)
    yield _results(facts)
    yield _contamination(facts.run.contamination)
    if facts.revision.name == MAIN:
        yield _figures(facts)
        yield _checkpoints(facts)
    yield "## Limits\n\n" + _LIMITS.format(
        max_tokens=tokenizer.get("model_max_length", "the tokenizer's limit of")
    )
    yield f"## Citation\n\n{_base_citation(facts)}{fenced(_CITATIONS, 'bibtex')}"
    used = facts.record.get("versions") or {}
    yield "## Made with\n\n" + table(("library", "version"), used.items()) if used else ""


def _prompts(folder: Path) -> str:
    settings = read_json(folder / "config_sentence_transformers.json")
    prompts = {name: prompt for name, prompt in settings["prompts"].items() if prompt}
    if not prompts:
        return "The model has no prompts: queries and documents are embedded as they are."
    words = "Put the prompt of its kind before a text; a kind that is not listed has none."
    return f"{words}\n\n{fenced(json.dumps(prompts, indent=1, ensure_ascii=False), 'json')}"


def _lineage(facts: Facts) -> str:
    rows = [
        (
            "made from" if item.depth == 1 else f"{item.depth} back",
            item.name,
            item.kind,
            item.revision,
            (item.content_hash or "")[:12] or None,
        )
        for item in facts.ancestors
    ]
    own = ("this model", facts.revision.checkpoint.resolve().name, facts.record.get("kind"), None)
    shown = table(
        ("", "model", "made by", "revision", "content hash"),
        [(*own, str(facts.record.get("content_hash", ""))[:12]), *rows],
    )
    named = _links(facts.base_models)
    base = f"\n\nBase model: {named}." if named else "\n\nThe backbone has no record on the Hub."
    licence = facts.about.license
    return f"## Lineage\n\n{shown}{base} Licence of this model: {text(licence) if licence else 'not stated'}."


def _recipe(facts: Facts) -> str:
    settings = facts.run.settings
    if not settings:
        keys = {
            key: facts.record[key]
            for key in ("merge", "method", "parameters", "settings")
            if key in facts.record
        }
        return "## Recipe\n\n" + table(("setting", "value"), _flat(keys)) if keys else ""
    data = {key: value for key, value in (settings.get("data") or {}).items() if key != "sources"}
    parts = {"seed": settings.get("seed"), "pooling": settings.get("pooling"), "loss": settings.get("loss")}
    parts |= {"training": settings.get("training"), "data": data}
    parts |= {key: facts.run.manifest.get(key) for key in ("steps", "rows", "ranks", "data_fingerprint")}
    adapted = (settings.get("training") or {}).get("lora")
    merged = (
        "\n\nTrained as a low-rank adapter and published with it merged into the weights." if adapted else ""
    )
    return "## Training recipe\n\n" + table(("setting", "value"), _flat(parts)) + merged


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif value is not None:
        plain = isinstance(value, str) and "\n" not in value
        yield path, str(value) if plain else json.dumps(value, ensure_ascii=False, default=str)


def _data(facts: Facts) -> str:
    rows = []
    for source in facts.sources:
        place = (
            source.get("dataset")
            or source.get("path")
            or source.get("rows")
            or "generated, no texts of others"
        )
        licence = source.get("license") or ("none needed" if source.get("kind") == "world" else "unknown")
        rows.append((source.get("name") or source.get("kind"), place, licence))
    if not rows:
        return ""
    unknown = sum(row[2] == "unknown" for row in rows)
    note = f"\n\nThe licence of {unknown} of {len(rows)} sources is not recorded." if unknown else ""
    return "## Training data\n\n" + table(("source", "from", "licence"), rows) + note


def _results(facts: Facts) -> str:
    scores = facts.scores.get(facts.revision.name)
    if not scores:
        return "## Results\n\nThis checkpoint was not scored."
    first = facts.scores.get(step_name(0)) if facts.revision.step else None
    before = {entry["task"]: entry.get("main_score") for entry in first["tasks"]} if first else {}
    rows: list[tuple[object, ...]] = []
    for entry in scores["tasks"]:
        metric = "main score" if entry.get(WHILE_TRAINING) else str(entry.get("main_metric", "ndcg_at_10"))
        rows.append((entry["task"], metric, entry.get("main_score"), before.get(entry["task"])))
    rows += [(entry["task"], "failed", None, None) for entry in scores["failed"]]
    same = first is not None and before.keys() == {entry["task"] for entry in scores["tasks"]}
    rows.append(("mean over tasks", "", mean_score(scores), mean_score(first) if same else None))
    columns = 4 if first else 3
    header = ("task", "metric", "score", "before training")[:columns]
    live = any(entry.get(WHILE_TRAINING) for entry in scores["tasks"])
    note = "\n\nTaken of the model while it trained, on the run's own light evaluation." if live else ""
    return "## Results\n\n" + table(header, (row[:columns] for row in rows)) + note


def _contamination(found: dict[str, Any]) -> str:
    if not found:
        return ""
    rows = [
        (task, kind, record["texts"], record["exact"], record["near"])
        for task, kinds in (found.get("tasks") or {}).items()
        for kind, record in kinds.items()
    ]
    parts = [
        "## Contamination",
        "Distinct texts of the tasks that the training data hold, word for word or nearly.",
    ]
    parts += [table(("task", "texts of", "distinct", "exact", "near"), rows)] if rows else []
    if unchecked := found.get("unchecked"):
        parts.append(f"Not checked: {', '.join(text(task) for task in unchecked)}.")
    return "\n\n".join(parts)


def _figures(facts: Facts) -> str:
    shown = [
        f"![{text(title)}](figures/{path.name})\n\n*{text(title)}*"
        for title, path in facts.run.figures.items()
    ]
    return "\n\n".join(["## Representation similarity", *shown]) if shown else ""


def _checkpoints(facts: Facts) -> str:
    if not facts.release.steps:
        return ""
    rows = [(item.step, item.name, mean_score(facts.scores.get(item.name))) for item in facts.release.steps]
    kind = "tag" if facts.release.tags else "branch"
    return (
        f"## Checkpoints\n\nEvery kept step is a {kind} of this repository; `main` is step {facts.revision.step}. "
        "`checkpoints.jsonl` lists them with their hashes and scores.\n\n"
        + table(("step", "revision", "mean score"), rows)
    )


def _base_citation(facts: Facts) -> str:
    named = _links(facts.base_models)
    return f"Please cite the base model ({named}) as its authors ask, and:\n\n" if named else ""


def _links(models: list[str]) -> str:
    return ", ".join(f"[{name}](https://huggingface.co/{name})" for name in models)


def _metadata(facts: Facts) -> str:
    """Return the YAML that the Hub indexes a model by."""
    from huggingface_hub import ModelCardData

    scores = facts.scores.get(facts.revision.name)
    results = _eval_results(scores) if scores else None
    base = facts.base_models
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", "dense", "reasoning-embedding"],
        license=facts.about.license,
        language=list(facts.about.languages) or None,
        base_model=(base if len(base) > 1 else base[0]) if base else None,
        base_model_relation=("merge" if facts.merged else "finetune") if base else None,
        datasets=_hub_datasets(facts) or None,
        model_name=facts.release.repo if results else None,
        eval_results=results,
    )
    try:
        return data.to_yaml()
    except ValueError as error:
        raise InputError(f"the card's metadata cannot be written: {error}") from error


def _hub_datasets(facts: Facts) -> list[str]:
    hub = [source["dataset"] for source in facts.sources if source.get("kind") == "hub"]
    return [name for name in dict.fromkeys(hub) if name.count("/") <= 1 and not Path(name).exists()]


def _eval_results(scores: dict[str, Any]) -> Any:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=str(entry.get("type", "Retrieval")),
            dataset_type=str(entry["task"]),
            dataset_name=str(entry["task"]),
            metric_type=str(entry.get("main_metric", "ndcg_at_10")),
            metric_value=round(float(entry["main_score"]), 6),
        )
        for entry in scores["tasks"]
        if entry.get("main_score") is not None and not entry.get(WHILE_TRAINING)
    ] or None
