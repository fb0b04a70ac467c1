"""The YAML reader: scalars of YAML 1.2, and a place for everything that is wrong."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reasoning_embedding.config.reading.tree import Problems, plain
from reasoning_embedding.config.reading.yaml_file import parse_yaml
from reasoning_embedding.errors import ConfigError


def read(text):
    problems = Problems()
    tree = parse_yaml(text, "f.yaml", problems)
    problems.raise_if_any()
    return None if tree is None else plain(tree)


def problems_of(text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.problems


# Tables of https://yaml.org/spec/1.2.2/#1032-tag-resolution and the words of YAML 1.1 that 1.2 dropped.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E3", 1000.0),
        ("-.5", -0.5),
        ("+12", 12),
        ("12.", 12.0),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("-0", 0),
        ("0", 0),
        ("1.5e+3", 1500.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2020-01-01", "2020-01-01"),
        ("1e", "1e"),
        ("e5", "e5"),
        (".", "."),
        ("+.nan", "+.nan"),
        ("tRUE", "tRUE"),
        ("=", "="),
        ("'1'", "1"),
        ('"null"', "null"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = read(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_float():
    assert math.isnan(read("key: .nan")["key"])


def test_plain_pyyaml_reads_these_otherwise():
    """The control: were the resolvers not ours, the table above could not pass."""
    assert yaml.safe_load("[no, 12:30, 1e-5]") == [False, 750, "1e-5"]


def test_both_lines_of_a_duplicate_key_are_named():
    assert problems_of("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n") == [
        "f.yaml:5:3: duplicate key 'c'; it was first given at f.yaml:3:3"
    ]


def test_every_problem_of_a_file_is_reported_in_order():
    found = problems_of("a: !foo 1\na: 2\n1: x\n<<: {b: 1}\nc: !!int x\n")
    assert [item.split(": ")[0] for item in found] == [
        "f.yaml:1:4",
        "f.yaml:2:1",
        "f.yaml:3:1",
        "f.yaml:4:1",
        "f.yaml:5:4",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\n\tb: 2\n", 2, "tabs"),
        ("a: [1,\nb: 2\n", 1, "not valid YAML"),
        ("a: b: c\n", 1, "quotes"),
        ("a: 1\n---\nb: 2\n", 2, "more than one"),
        ("a: 1\nb: \x01\n", 2, "'\\x01'"),
        ("a: 1\nb: *nope\n", 2, "alias"),
        ("a: &x\n  b: *x\n", 1, "contains itself"),
        ('a: "\\ud800"\n', 1, ""),
        ("a: @x\n", 1, "quote"),
        ("? [a, b]\n: 1\n", 1, "key must be text"),
    ],
)
def test_broken_text_has_a_line(text, line, words):
    found = problems_of(text)
    assert found[0].startswith(f"f.yaml:{line}:")
    assert words in found[0]


def test_deep_nesting_and_alias_bombs_are_refused():
    assert "nested" in problems_of("a: " + "[" * 5000)[0] or "YAML" in problems_of("a: " + "[" * 5000)[0]
    assert problems_of("a: " + "[" * 900 + "]" * 900)
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))
    assert "this is not a configuration" in "".join(problems_of(f"a0: &a0 x\n{levels}\n"))


def test_aliases_are_shared_values():
    assert read("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=80)
    | st.from_regex(r"[-:\[\]{}&*!|>'\"a1\n\t #?,$]{0,40}")
)
def test_no_text_ends_in_anything_but_a_value_or_located_problems(text):
    problems = Problems()
    parse_yaml(text, "f.yaml", problems)
    if len(problems):
        assert all(problem.startswith("f.yaml:") for problem in problems_of(text))
