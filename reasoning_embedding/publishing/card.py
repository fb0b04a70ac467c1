"""The model card: what a reader must know, in the order of their questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import step_name
from reasoning_embedding.checkpoints.scores import WHILE_TRAINING

from .card_text import CHECKED, CITATIONS, INTRODUCTION, LIMITS
from .facts import Facts
from .markdown import table, text
from .metadata import metadata
from .record import Ancestor, mean_score
from .release import MAIN
from .usage import TITLES, fenced, snippets

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
    (folder / CARD).write_text(f"---\n{metadata(facts)}\n---\n\n{sections}\n", encoding="utf-8")


def _sections(facts: Facts, folder: Path) -> Iterator[str]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    layers = f" of {config['num_hidden_layers']} layers" if "num_hidden_layers" in config else ""
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    step = "" if facts.revision.step is None else f", step {facts.revision.step}"
    named = facts.record.get("run") or facts.revision.checkpoint.resolve().name
    yield f"# {text(facts.release.repo.partition('/')[2])}"
    yield (
        f"A text embedder: a {text(config['model_type'])} decoder{layers} with bidirectional attention, the mean "
        f"of its last states, unit length ({text(named)}{step}). Similarity is the cosine."
    )
    yield INTRODUCTION
    yield "## Usage"
    for library, code in snippets(folder, facts.release.repo, facts.revision.name).items():
        yield f"### {TITLES[library]}\n\n{fenced(code, 'python')}"
    yield CHECKED
    yield _prompts(folder)
    yield _lineage(facts)
    yield _recipe(facts)
    yield _data(facts)
    yield _results(facts)
    yield _contamination(facts.run.contamination)
    if facts.revision.name == MAIN:
        yield _figures(facts)
        yield _checkpoints(facts)
    yield "## Limits\n\n" + LIMITS.format(
        max_tokens=tokenizer.get("model_max_length", "the tokenizer's limit of")
    )
    yield f"## Citation\n\n{_base_citation(facts)}{fenced(CITATIONS, 'bibtex')}"
    used = facts.record.get("versions") or {}
    yield "## Made with\n\n" + table(("library", "version"), used.items()) if used else ""


def _prompts(folder: Path) -> str:
    settings = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
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
            _short(item),
        )
        for item in facts.ancestors
    ]
    own = ("this model", facts.revision.checkpoint.resolve().name, facts.record.get("kind"), None)
    shown = table(
        ("", "model", "made by", "revision", "content hash"),
        [(*own, str(facts.record.get("content_hash", ""))[:12]), *rows],
    )
    named = ", ".join(f"[{name}](https://huggingface.co/{name})" for name in facts.base_models)
    base = f"\n\nBase model: {named}." if named else "\n\nThe backbone has no record on the Hub."
    licence = facts.about.license
    return f"## Lineage\n\n{shown}{base} Licence of this model: {text(licence) if licence else 'not stated'}."


def _short(item: Ancestor) -> str | None:
    return item.content_hash[:12] if item.content_hash else None


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
    names = [f"[{name}](https://huggingface.co/{name})" for name in facts.base_models]
    return f"Please cite the base model ({', '.join(names)}) as its authors ask, and:\n\n" if names else ""
