"""Rows that stages learn from, in the forms trl's trainers take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from reasoning_embedding.config.lineage import (
    CompletionFiles,
    PreferenceFiles,
    ProblemFiles,
    PromptFiles,
)
from reasoning_embedding.data.readers import read_records
from reasoning_embedding.errors import InputError

from .corpus import existing_file
from .rewards import Judge

_FIELD = re.compile(r"\{(\w+)\}")

Row = dict[str, Any]


def completion_rows(data: CompletionFiles, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Return ``{prompt, completion}`` rows: texts, or turns where the data is a chat.

    Raises
    ------
    InputError
        If a file, a row or a field is missing, or there is no chat template to write a chat with.
    """
    if data.messages is not None and not data.chat:
        raise InputError("messages need a chat", where="data.messages", todo="set data.chat: true")
    rows = []
    for where, record in _records(data, tokenizer):
        if data.messages is not None:
            turns = _conversation(record, data.messages, where)
            rows.append({"prompt": turns[:-1], "completion": turns[-1:]})
        else:
            completion = fill(data.completion, record, where)
            rows.append({"prompt": _prompt(data, record, where), "completion": _answer(data, completion)})
    return rows


def preference_rows(data: PreferenceFiles, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Return ``{prompt, chosen, rejected}`` rows.

    Raises
    ------
    InputError
        As for :func:`completion_rows`, and where chosen and rejected are equal.
    """
    rows = []
    for where, record in _records(data, tokenizer):
        chosen, rejected = fill(data.chosen, record, where), fill(data.rejected, record, where)
        if chosen == rejected:
            raise InputError("chosen and rejected are equal", where=where, todo="drop the row")
        prompt = _prompt(data, record, where)
        rows.append({"prompt": prompt, "chosen": _answer(data, chosen), "rejected": _answer(data, rejected)})
    return rows


def problem_rows(data: ProblemFiles, tokenizer: PreTrainedTokenizerBase, judge: Judge) -> list[Row]:
    """Return ``{prompt, answer}`` rows whose answers the reward recognises.

    Raises
    ------
    InputError
        As for :func:`completion_rows`, and where a right answer does not parse.
    """
    rows = []
    for where, record in _records(data, tokenizer):
        answer = fill(data.answer, record, where)
        judge.check_answer(answer, where)
        rows.append({"prompt": _prompt(data, record, where), "answer": answer})
    return rows


def fill(text: str, record: Row, where: str) -> str:
    """Return a text with every ``{field}`` replaced by that field of a row; other braces stay.

    Raises
    ------
    InputError
        If the row lacks a field, or what it holds is neither text nor a number.
    """

    def value(match: re.Match[str]) -> str:
        found = record.get(match[1])
        if isinstance(found, bool) or not isinstance(found, str | int | float):
            what = "is missing" if found is None else "is neither text nor a number"
            raise InputError(
                f"the field {match[1]!r} {what}",
                where=where,
                todo=f"the row has {', '.join(map(str, record))}; say which under data",
            )
        return str(found)

    return _FIELD.sub(value, text)


def _records(data: PromptFiles, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, Row]]:
    if data.chat and not tokenizer.chat_template:
        raise InputError(
            "the tokenizer has no chat template",
            where="data.chat",
            todo="set it to false, or choose a chat model",
        )
    count = 0
    for name in data.paths:
        for where, record in read_records(existing_file(name)):
            if count == data.limit:
                return
            if not isinstance(record, dict):
                raise InputError("not a JSON object", where=where, todo="put one JSON object on each line")
            count += 1
            yield where, record
    if not count:
        raise InputError("no rows", where=", ".join(data.paths), todo="name files with rows")


def _prompt(data: PromptFiles, record: Row, where: str) -> str | list[dict[str, str]]:
    text = fill(data.prompt, record, where)
    if not text.strip():
        raise InputError("the prompt is empty", where=where, todo="drop the row, or correct data.prompt")
    if not data.chat:
        return text
    system = [{"role": "system", "content": data.system}] if data.system else []
    return [*system, {"role": "user", "content": text}]


def _answer(data: PromptFiles, text: str) -> str | list[dict[str, str]]:
    return [{"role": "assistant", "content": text}] if data.chat else text


def _conversation(record: Row, field: str, where: str) -> list[dict[str, str]]:
    turns = record.get(field)
    well_formed = isinstance(turns, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in turns
    )
    if not well_formed or len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise InputError(
            f"the field {field!r} is no conversation that ends with the assistant",
            where=where,
            todo='write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]',
        )
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]
