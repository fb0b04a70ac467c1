"""Rows of files in the forms trl takes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.config.lineage import CompletionFiles, PreferenceFiles, ProblemFiles
from reasoning_embedding.errors import InputError
from reasoning_embedding.lineages.rewards import Judge
from reasoning_embedding.lineages.training_rows import completion_rows, fill, preference_rows, problem_rows
from tests.factories import build_tiny_tokenizer, write_lines

PLAIN, CHAT = build_tiny_tokenizer(), build_tiny_tokenizer()
CHAT.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"


def write(path: Path, *rows: Any) -> dict[str, Any]:
    return {"kind": "files", "paths": [str(write_lines(path, rows))]}


def test_fields_fill_a_text_and_other_braces_stay() -> None:
    row = {"question": "2 + 2?", "n": 4}
    assert fill("Q: {question} \\boxed{ {n}}", row, "f:1") == "Q: 2 + 2? \\boxed{ 4}"
    # What a row says is never taken for a template.
    assert fill("{question}", {"question": "{n}"}, "f:1") == "{n}"


def test_plain_rows_are_texts_and_chat_rows_are_turns(tmp_path: Path) -> None:
    files = write(tmp_path / "a.jsonl", {"q": "2 + 2?", "a": "4"}, {"q": "1 + 1?", "a": "2"})
    shape = files | {"prompt": "{q} =", "completion": " {a}"}
    plain = completion_rows(CompletionFiles.model_validate(shape | {"limit": 1}), PLAIN)
    assert plain == [{"prompt": "2 + 2? =", "completion": " 4"}]
    chat = completion_rows(CompletionFiles.model_validate(shape | {"chat": True, "system": "add"}), CHAT)
    assert chat[1] == {
        "prompt": [{"role": "system", "content": "add"}, {"role": "user", "content": "1 + 1? ="}],
        "completion": [{"role": "assistant", "content": " 2"}],
    }


def test_conversations_teach_their_last_turn(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    files = write(tmp_path / "a.jsonl", {"messages": turns}) | {"messages": "messages"}
    [row] = completion_rows(CompletionFiles.model_validate(files | {"chat": True}), CHAT)
    assert row == {"prompt": turns[:1], "completion": turns[1:]}
    with pytest.raises(InputError, match="messages need a chat"):
        completion_rows(CompletionFiles.model_validate(files), CHAT)
    bad = write(tmp_path / "b.jsonl", {"messages": turns[:1]}) | {"messages": "messages", "chat": True}
    with pytest.raises(InputError, match=r"b\.jsonl:1: the field 'messages' is no conversation"):
        completion_rows(CompletionFiles.model_validate(bad), CHAT)


def test_a_problem_without_its_field_or_a_right_answer_is_named(tmp_path: Path) -> None:
    files = write(tmp_path / "p.jsonl", {"question": "2+2", "target": 4.0}, {"body": "2+2", "target": 4})
    shape = files | {"prompt": "{question}", "answer": "{target}"}
    with pytest.raises(InputError, match=r"p\.jsonl:2: the field 'question' is missing") as error:
        problem_rows(ProblemFiles.model_validate(shape), PLAIN, Judge("numeric"))
    assert "the row has body, target" in str(error.value)
    [row] = problem_rows(ProblemFiles.model_validate(shape | {"limit": 1}), PLAIN, Judge("numeric"))
    assert row == {"prompt": "2+2", "answer": "4.0"}
    words = write(tmp_path / "w.jsonl", {"prompt": "2+2", "answer": "four"})
    with pytest.raises(InputError, match=r"w\.jsonl:1: the right answer 'four'"):
        problem_rows(ProblemFiles.model_validate(words), PLAIN, Judge("numeric"))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are equal"),
        ({"prompt": " ", "chosen": "b", "rejected": "c"}, "the prompt is empty"),
        ({"prompt": ["a"], "chosen": "b", "rejected": "c"}, "neither text nor a number"),
        (["a"], "not a JSON object"),
    ],
)
def test_bad_pairs_are_refused(tmp_path: Path, row: Any, what: str) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    data = PreferenceFiles.model_validate(write(tmp_path / "d.jsonl", good, row))
    with pytest.raises(InputError, match=what) as error:
        preference_rows(data, PLAIN)
    assert "d.jsonl:2" in str(error.value)


def test_no_rows_no_file_and_no_template_are_refused(tmp_path: Path) -> None:
    empty = PreferenceFiles.model_validate(write(tmp_path / "e.jsonl"))
    with pytest.raises(InputError, match="no rows"):
        preference_rows(empty, PLAIN)
    with pytest.raises(InputError, match="no such file"):
        preference_rows(PreferenceFiles(kind="files", paths=[str(tmp_path / "none.jsonl")]), PLAIN)
    chat = PreferenceFiles.model_validate(write(tmp_path / "c.jsonl", {"prompt": "a"}) | {"chat": True})
    with pytest.raises(InputError, match="no chat template"):
        preference_rows(chat, PLAIN)
