"""Verifiable rewards: what parses, what is right, what a user's own function may do."""

from __future__ import annotations

import gzip
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from reasoning_embedding.errors import InputError
from reasoning_embedding.lineages.rewards import (
    Judge,
    exact_match,
    final_choice,
    final_number,
    find_reward,
    multiple_choice,
    numeric,
)
from reasoning_embedding.lineages.word_problems import word_problems


def records(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16 - 3 - 4 = 9 eggs", 9), ("5-3=2", 2), ("x = -7", -7), ("\u22124", -4), ("2 + -3", -3),
        ("$-3.50 in all", Fraction(-7, 2)), ("it costs $1,234.50.", Fraction(2469, 2)), ("3/4 of it", Fraction(3, 4)),
        (".5", Fraction(1, 2)), ("1,2", 2), ("9 more, so #### 12 apples of 30", 12), ("#### 1 #### 2", 2),
        (r"thus \boxed{17} (not 18)", 17), ("The answer is 6. I used 2 steps.", 6), ("answer: 8", 8),
        ("no number", None), ("at 3:45", None), ("a ratio of 3:4", None), ("", None), ("#### none, 5 before", 5),
    ],
)  # fmt: skip
def test_the_final_number_of_a_text(text: str, value: Fraction | int | None) -> None:
    assert final_number(text) == value


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), ("(C)", "C"), ("D. because heat rises", "D"), ("the answer is (B).", "B"), (r"\boxed{E}", "E"),
        ("A cat sat, so (C)", "C"), ("first (A), no: (B)", "B"), ("Answer is A.", "A"), ("I think so", None),
        ("none of them", None), ("", None),
    ],
)  # fmt: skip
def test_the_choice_of_a_text(text: str, letter: str | None) -> None:
    assert final_choice(text) == letter


def test_rewards_tell_right_wrong_and_unparsed_apart() -> None:
    assert [numeric(text, "#### 1,000") for text in ("1000.0", "999", "many")] == [1.0, 0.0, None]
    assert [multiple_choice(text, "(B)") for text in ("B", "A", "cannot say")] == [1.0, 0.0, None]
    given = ["0 1 2 .", "012.", "0 1 3 .", "0 1 2", "0 0 1 2 ."]
    assert [exact_match(text, "012 .") for text in given] == [1, 1, 0, 0, 0]


def test_a_judge_counts_what_does_not_parse() -> None:
    logged: dict[str, float] = {}
    judge = Judge("numeric")
    values = judge(["4", "5", "?", [{"role": "assistant", "content": "so 4"}]], ["4"] * 4, logged.__setitem__)
    assert values == [1.0, 0.0, 0.0, 1.0]
    assert logged == {"unparsed": 0.25}


def test_an_own_function_is_imported_and_its_faults_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_reward.py").write_text(
        "def short(completion, answer):\n    return 1 / len(completion)\n"
        "def words(completion, answer):\n    return 'good'\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert Judge("own_reward:short")(["ab", "abcd"], ["", ""]) == [0.5, 0.25]
    with pytest.raises(InputError, match="ZeroDivisionError"):
        Judge("own_reward:short")([""], [""])
    with pytest.raises(InputError, match="could not convert string to float"):
        Judge("own_reward:words")(["a"], [""])
    for name, said in {
        "own_reward:number": "no function",
        "own_reward:none": "no function 'none'",
        "no_such_module_here:f": "cannot import it",
    }.items():
        with pytest.raises(InputError, match=said):
            find_reward(name)


def test_right_answers_that_do_not_parse_are_refused() -> None:
    Judge("numeric").check_answer("#### 7", "f:1")
    with pytest.raises(InputError, match=r"f:2: the right answer 'seven' does not hold a number"):
        Judge("numeric").check_answer("seven", "f:2")
    with pytest.raises(InputError, match="a choice A to J"):
        Judge("multiple_choice").check_answer("5", "f:3")


def test_generated_word_problems_are_right_and_repeat() -> None:
    problems = list(word_problems(200, 3))
    assert problems == list(word_problems(200, 3)) != list(word_problems(200, 4))
    for problem in problems:
        *working, last = problem.partition("\nAnswer: ")[2].splitlines()
        for line in working:
            sum_, _, result = line.partition("<<")[2].partition(">>")[0].partition("=")
            assert Fraction(eval(sum_, {"__builtins__": {}})) == int(result)
        assert numeric(problem, result) == 1.0
        assert last == f"#### {result}"


def test_gsm8k_parses_whole_and_mawps_too(real_data: Path) -> None:
    for split, rows in (("train", 7473), ("test", 1319)):
        answers = [record["answer"] for record in records(real_data / "gsm8k" / f"{split}.jsonl.gz")]
        golds = [Fraction(answer.rpartition("####")[2].strip().replace(",", "")) for answer in answers]
        assert len(answers) == rows
        assert [final_number(answer) for answer in answers] == golds
    mawps = records(real_data / "math_eval" / "mawps.jsonl.gz")
    assert all(numeric(str(record["target"]), str(record["target"])) == 1.0 for record in mawps)
    # ASDiv also asks for names, times and ratios, which are no numbers.
    asdiv = records(real_data / "math_eval" / "asdiv.jsonl.gz")
    parsed = [record for record in asdiv if final_number(record["answer"]) is not None]
    assert 0.93 < len(parsed) / len(asdiv) < 0.98
    plain = [answer for record in asdiv if re.fullmatch(r"[\d.]+( \(.*\))?", answer := record["answer"])]
    assert len(plain) > 2000
    assert all(final_number(answer) == Fraction(answer.split()[0]) for answer in plain)
