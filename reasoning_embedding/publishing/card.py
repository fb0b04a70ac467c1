"""The model card: what a reader must know, in the order of their questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_embedding.backbones import Head, Readout, read_readout
from reasoning_embedding.checkpoints import step_name
from reasoning_embedding.checkpoints.scores import WHILE_TRAINING
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json

from .facts import Facts, mean_score
from .markdown import fenced, table, text
from .release import MAIN
from .usage import TITLES, snippets

_CAUSAL = """\
Attention is causal, as in the language model it was made from; no remote code is needed.

**Minimum versions: `transformers >= 5.2`, `sentence-transformers >= 6.0`.**"""

_BIDIRECTIONAL = """\
Attention is bidirectional by the stock architecture's own switch, `is_causal: false` in `config.json`; no
remote code is needed.

**Minimum versions: `transformers >= 5.2`, `sentence-transformers >= 6.0`.** Earlier versions of transformers
ignore the switch without a word: attention stays causal and the embeddings are others."""

_POOLED = {
    "mean": "the mean of its last states",
    "last": "the last state of a text",
    "first": "the first state of a text",
    "weighted_mean": "the mean of its last states weighted by position",
}

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
    saved = read_readout(str(folder))
    readout = saved.readout if saved else Readout()
    heads = "".join(f", a linear head to {head.out_features} dimensions" for head in readout.heads)
    yield (
        f"A text embedder: a {text(config['model_type'])} decoder{layers} with {readout.attention} attention, "
        f"{_POOLED[readout.pooling]}{heads}, unit length ({text(named)}{step}). Similarity is the cosine."
    )
    yield _CAUSAL if readout.causal else _BIDIRECTIONAL
    yield "## Usage"
    for library, code in snippets(folder, facts.release.repo, facts.revision.name).items():
        yield f"### {TITLES[library]}\n\n{fenced(code, 'python')}"
    yield _CHECKED
    yield _prompts(folder)
    yield _lineage(facts)
    yield _recipe(facts)
    yield _data(facts)
    yield _results(facts, saved.prompts if saved else {})
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


def _results(facts: Facts, prompts: dict[str, str]) -> str:
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
    shown = table(header, (row[:columns] for row in rows))
    return "\n\n".join(["## Results", shown + note, *_how_scored(scores, prompts)])


def _how_scored(scores: dict[str, Any], prompts: dict[str, str]) -> Iterator[str]:
    """Say what was put before the texts, where they were cut, in which precision and readout they were embedded."""
    settings = scores.get("settings") or {}
    entries = [entry for entry in scores["tasks"] if "prompts" in entry or "prompt" in entry]
    if not settings and not entries:
        yield "How these texts were asked, cut and embedded is not recorded."
        return
    limit = settings.get("max_tokens")
    parts = ["not cut" if limit is None else f"cut at {limit} tokens"]
    parts += [f"embedded in {settings['dtype']}"] if settings.get("dtype") else []
    if settings.get("truncate"):
        parts.append(f"vectors truncated to {settings['truncate']} dimensions")
    parts += [f"kept as {settings['quantize']}"] if settings.get("quantize") else []
    readout = _readout_in_words(settings.get("readout"))
    yield f"Texts were {', '.join(parts)}{f'; readout: {readout}' if readout else ''}."
    asked: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        for pair in _sent(entry):
            asked.setdefault(pair, []).append(str(entry["task"]))
    if not asked:
        return
    lines = []
    for (query, document), tasks in asked.items():
        sides = [
            f"{side} {f'after {text(json.dumps(prompt, ensure_ascii=False))}' if prompt else 'as they are'}"
            for side, prompt in (("queries", query), ("documents", document))
        ]
        lines.append(f"- {text(', '.join(dict.fromkeys(tasks)))}: {', '.join(sides)}.")
    yield "Scored with these prompts:\n\n" + "\n".join(lines)
    used = {prompt for pair in asked for prompt in pair if prompt}
    if unused := [name for name, prompt in prompts.items() if prompt and prompt not in used]:
        names = ", ".join(map(text, unused))
        yield f"No score was taken with the model's own prompt {names}: what it does to scores was not measured."


def _sent(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Prompts of queries and of documents that a task's texts were embedded with, by subset."""
    sent = entry.get("prompts") or {}
    subsets = [sides for name, sides in sent.items() if name != "tasks" and isinstance(sides, dict)]
    for sides in subsets:
        texts = sides.get("query", next(iter(sides.values()), ""))
        yield str(texts or ""), str(sides.get("document", texts) or "")
    if not subsets:
        yield str(entry.get("prompt") or ""), ""


def _readout_in_words(record: Any) -> str:
    """A readout as the store of scores holds it: of the packed forward, or of sentence-transformers."""
    if not isinstance(record, dict):
        return ""
    if "modules" in record:
        return f"{' + '.join(record['modules'])}, pooling {record.get('pooling')}"
    known: dict[str, Any] = {**record, "heads": tuple(Head(**head) for head in record.get("heads", ()))}
    return str(Readout(**known))


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
