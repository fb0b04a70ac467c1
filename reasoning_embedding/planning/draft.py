"""A run file for somebody's data and model, and a look at both before a run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.data import Plan, load_table, require_scores
from reasoning_embedding.data.readers import data_files, file_stem, is_data_file, read_records
from reasoning_embedding.data.rows import BELOW_SCORE, BadRows, Row
from reasoning_embedding.data.sources import read_rows
from reasoning_embedding.data.teacher_vectors import TeacherVectors
from reasoning_embedding.errors import InputError
from reasoning_embedding.host import host_memory

from .shapes import DecoderShape, backbone_shape
from .texts import CHARACTERS, tokenizer_folder

#: Rows that a draft looks at.
_ROWS = 5000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: Bytes a parameter of training in full: weight, gradient and two moments in float32.
_TRAINED = 16


@dataclass(frozen=True)
class Draft:
    """A run file, and what was found on the way.

    Attributes
    ----------
    text : str
        YAML of kind run.
    found : list of str
        Sentences about the data and the model.
    """

    text: str
    found: list[str]


def draft_run(data: str, model: str, *, name: str | None = None, on_gpu: bool = False) -> Draft:
    """Write a run file for a data set and a model: lengths, negatives, batch and memory from both and this machine.

    Parameters
    ----------
    data : str
        A file or folder, or the id of a data set of the Hub, of which some rows are streamed.
    model : str
        A folder or a Hub id.
    name : str, optional
        Of the run; absent: the data's.
    on_gpu : bool
        Whether it will train on a GPU.

    Raises
    ------
    InputError
        If the data cannot be read as rows, or there is no such data or model.
    SetupError
        If the Hub cannot be reached.
    """
    source, graded = _source(data)
    backbone = _backbone(model)
    reader = BadRows("skip")
    rows = list(islice(read_rows(config.Data(sources=[_section(source)], bad_rows="skip"), reader), _ROWS))
    whole = len(rows) < _ROWS
    shape, missing = _shape(backbone)
    queries, documents, counted = _lengths(rows, backbone)
    longest = [
        _limit(lengths, None if shape is None else _positions(backbone)) for lengths in (queries, documents)
    ]
    negatives = min(7, int(np.median([len(row.negatives) for row in rows])))
    batch = _batch(len(rows) if whole else None, on_gpu=on_gpu)
    steps = max(1, len(rows) // batch) if whole else None
    lora = shape is not None and not on_gpu and _TRAINED * shape.parameters > 0.7 * host_memory().available
    bad = {reason: count for reason, count in reader.counts.items() if reason != BELOW_SCORE}
    instructions = sum(row.instruction is not None for row in rows)
    found = [
        f"data: {'' if whole else 'the first '}{len(rows):,} rows, {counted}",
        *reader.notes,
        *(f"{count:,} records are no rows: {reason}" for reason, count in bad.items()),
        *([] if missing is None else [missing]),
    ]
    lines = [
        "# Written by `rembed init`; every key is explained by `rembed config schema run` and docs/configuration.md.",
        "kind: run",
        f"name: {_name(name or _stem(data))}",
        "backbone:",
        "  kind: pretrained",
        f"  path: {json.dumps(model)}",
    ]
    if not Path(model).expanduser().is_dir():
        lines.append("  revision: main  # better: a commit, so that the run can be repeated")
    lines += ["data:", "  sources:"]
    lines += [
        f"    {'-' if not place else ' '} {key}: {json.dumps(value)}"
        for place, (key, value) in enumerate(source.items())
    ]
    if graded is not None:
        lines[-1] += f"  # {graded}"
    if not instructions:
        lines.append(
            "      # instruction: Given a question, find the passage that answers it  # goes before every query"
        )
    lines += [
        f"  negatives: {negatives}  # hard negatives a row; the other rows' texts are negatives anyway",
        f"  query_max_tokens: {longest[0]}  # 99 % have at most {_share(queries)} tokens, instruction not counted",
        f"  document_max_tokens: {longest[1]}  # 99 % have at most {_share(documents)}",
    ]
    if bad:
        lines.append("  bad_rows: skip")
    lines += [
        "training:",
        f"  batch_size: {batch}",
        "  # steps: 1000  # absent: once over the data",
        "  learning_rate: 2e-5",
        f"  pack_tokens: {max(16384 if on_gpu else 2048, *longest)}",
    ]
    if lora:
        lines.append("  lora: {rank: 16}  # all weights would not fit into this machine's memory")
    lines += ["checkpoints:", f"  every: {200 if steps is None else max(1, math.ceil(steps / 4))}", ""]
    return Draft("\n".join(lines), found)


def look_at_inputs(settings: config.RunConfig) -> Iterator[str]:
    """Read a run's data and look at its backbone; yield what there is, in sentences.

    Raises
    ------
    InputError
        If the data cannot be read, cannot fill a batch or lacks what the loss needs, or the backbone is none.
    SetupError
        If the Hub cannot be reached.
    """
    table = load_table(settings.data)
    yield from table.notes
    yield f"data: {len(table):,} rows of {', '.join(table.sources)}; {len(table.texts):,} distinct texts"
    for reason, count in table.skipped.items():
        yield f"left out: {count:,} x {reason}"
    if settings.loss.distillation is not None:
        require_scores(table)
    if (learnt := settings.loss.teacher_vectors) is not None:
        teacher = TeacherVectors(Path(learnt.folder), table)
        yield f"vectors of {teacher.record['model']}, {teacher.dimension} dimensions: {learnt.folder}"
    plan = Plan(table, settings.training, settings.data, settings.seed)
    yield f"{plan.steps:,} steps of {settings.training.batch_size} queries; {plan.steps_per_epoch:,} an epoch"
    rows = [table.row(index) for index in range(0, len(table), max(1, len(table) // _ROWS))]
    queries, documents, counted = _lengths(rows, settings.backbone)
    limits = (
        ("queries", queries, settings.data.query_max_tokens),
        ("documents", documents, settings.data.document_max_tokens),
    )
    for what, lengths, limit in limits:
        cut = f"{(lengths > limit).mean():.1%} are cut at {limit}"
        yield f"{what}: 99 % have at most {_share(lengths)} tokens ({counted}); {cut}"
    if isinstance(settings.backbone, config.PretrainedBackbone):
        _backbone(settings.backbone.path)
    shape, missing = _shape(settings.backbone)
    if shape is None:
        yield missing or ""
    else:
        yield f"backbone: {shape.parameters / 1e6:,.0f} M parameters, {shape.layers} layers of {shape.hidden} dimensions"


def _source(data: str) -> tuple[dict[str, Any], str | None]:
    """The source a name stands for, as its keys, and a remark on the threshold of graded pairs."""
    if not Path(data).expanduser().exists():
        if not _HUB_ID.fullmatch(data) or data.startswith(".") or is_data_file(data):
            todo = "name a file, a folder, or a data set of the Hub as OWNER/NAME"
            raise InputError("no such data", where=str(Path(data).expanduser().absolute()), todo=todo)
        return {"kind": "hub", "dataset": data, "revision": "main", "streaming": True}, None
    source: dict[str, Any] = {"kind": "files", "path": data}
    # A score stands in every row or in none, as a rule.
    try:
        next(read_rows(config.Data(sources=[_section(source)]), BadRows()))
    except InputError as error:
        if "a graded pair" not in error.what:
            raise
        return _graded(source)
    return source, None


def _graded(source: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Set the threshold of graded pairs at two thirds of their range; of two labels, the higher."""
    records = chain.from_iterable(read_records(file) for file in data_files(source["path"]))
    scores: list[float] = []
    for _, record in islice(records, _ROWS):
        value = record.get("score", record.get("label")) if isinstance(record, dict) else None
        try:
            scores.append(float(value))  # ty: ignore[invalid-argument-type]
        except (TypeError, ValueError):
            continue
    low, high = min(scores), max(scores)
    threshold = high if len(set(scores)) == 2 else float(f"{low + 2 / 3 * (high - low):.3g}")
    kept = sum(score >= threshold for score in scores)
    remark = f"scores lie between {low:g} and {high:g}; {kept:,} of {len(scores):,} pairs are learnt"
    return source | {"min_score": threshold}, remark


def _section(source: dict[str, Any]) -> config.Source:
    kinds = {"files": config.FilesSource, "hub": config.HubSource}
    return kinds[source["kind"]](**source, limit=_ROWS)


def _backbone(model: str) -> config.PretrainedBackbone:
    """The backbone a name stands for.

    Raises
    ------
    InputError
        If it is a folder without a model, or neither a folder nor a Hub id.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            todo = "name a folder that holds a model: config.json, its weights and its tokenizer"
            raise InputError("no model lies here (no config.json)", where=str(folder.absolute()), todo=todo)
    elif not _HUB_ID.fullmatch(model) or model.startswith("."):
        todo = "name a folder with a model, or a model of the Hub as OWNER/NAME"
        raise InputError("no such model", where=str(folder.absolute()), todo=todo)
    return config.PretrainedBackbone(path=model)


def _shape(backbone: config.Backbone) -> tuple[DecoderShape | None, str | None]:
    """Sizes of a backbone, or why they are not known; a folder that is no decoder is refused."""
    local = isinstance(backbone, config.PretrainedBackbone) and not Path(backbone.path).expanduser().is_dir()
    try:
        return backbone_shape(backbone), None
    except InputError:
        if not local:
            raise
        return None, "the backbone is on the Hub and was not looked at"


def _positions(backbone: config.PretrainedBackbone) -> int | None:
    file = Path(backbone.path).expanduser() / "config.json"
    found = (
        json.loads(file.read_text(encoding="utf-8")).get("max_position_embeddings")
        if file.is_file()
        else None
    )
    return found if isinstance(found, int) else None


def _lengths(rows: Sequence[Row], backbone: config.Backbone) -> tuple[np.ndarray, np.ndarray, str]:
    """Tokens of queries and of documents of some rows, and how they were counted."""
    queries = [row.query for row in rows]
    documents = [text for row in rows for text in (*row.positives, *row.negatives)]
    folder = tokenizer_folder(backbone)
    if folder is None:
        counts = [
            np.array([max(1.0, len(text) / CHARACTERS) for text in texts]) for texts in (queries, documents)
        ]
        return counts[0], counts[1], "four characters a token"
    from reasoning_embedding.backbones.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    counts = [
        np.array([float(len(ids)) for ids in tokenizer(texts, add_special_tokens=True)["input_ids"]])
        for texts in (queries, documents)
    ]
    return counts[0], counts[1], "by the model's tokenizer"


def _share(lengths: np.ndarray) -> int:
    return int(np.ceil(np.quantile(lengths, 0.99)))


def _limit(lengths: np.ndarray, positions: int | None) -> int:
    """99 % of the texts whole, rounded up to 16, at least 32; what the model has at most."""
    return min(max(32, 16 * math.ceil(_share(lengths) / 16)), positions or 8192, 8192)


def _batch(rows: int | None, *, on_gpu: bool) -> int:
    """A power of two of at least 8: ten batches or more an epoch, at most 256 on a GPU and 32 on a processor."""
    most = 256 if on_gpu else 32
    return most if rows is None else max(2, min(rows, most, 2 ** max(3, int(math.log2(max(2, rows / 10))))))


def _stem(data: str) -> str:
    path = Path(data)
    return file_stem(path) if path.suffix else path.name


def _name(text: str) -> str:
    return (re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "run")[:60]
