"""Pages of the site that are made from code when it is built: keys, commands, metrics, notebooks.

Nothing here needs mkdocs, so the tests read the same pages without it. ``docs/hooks.py`` hands them to mkdocs.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import typer
import yaml
from pydantic import BaseModel

from reasoning_embedding import hrsa
from reasoning_embedding.cli.main import app
from reasoning_embedding.config import load_config, to_yaml
from reasoning_embedding.config.json_schema import attribute_docs
from reasoning_embedding.config.reading.loading import KINDS
from reasoning_embedding.config.reading.sections import kind_of, sections
from reasoning_embedding.hrsa.registry import METRICS, TRANSFORMATIONS, MetricSpec

ROOT = Path(__file__).resolve().parents[1]
#: Files of the repository's root that are pages of the site, and what they are called there.
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
#: Examples of keys that no shipped configuration gives: ``Section: {key: value}``.
EXAMPLES = ROOT / "docs" / "examples.yaml"
#: What the two sides of a metric's example are.
_EXAMPLE = "300 rows of 32 dimensions, and the same rows turned into other axes with noise of a fifth"


def pages() -> dict[str, str]:
    """Return every page that is made from code: its path in the site -> its Markdown."""
    found = {
        "reference/keys.md": keys_page(),
        "reference/commands.md": commands_page(),
        "reference/metrics.md": metrics_page(),
    }
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        found[f"notebooks/{path.stem}.md"] = notebook_page(path)
    for name, page in ROOT_PAGES.items():
        found[page] = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    return found


# --- every key of a configuration ---------------------------------------------------------------------


def keys_page() -> str:
    """Return the page of all keys: a table a section, a section where it is met first."""
    lines = [
        "# Every key",
        "",
        "Made from the code when this site was built. `rembed config schema KIND` gives the same to editors; how files",
        "are read (`extends`, overrides, variables) is told in [Configuration files](../configuration.md).",
    ]
    places: dict[type[BaseModel], list[str]] = {}
    for kind, model in KINDS.items():
        for place, section in sections(model):
            places.setdefault(section, []).append(f"{kind}: {place}")
    heading = ""
    for section, found in places.items():
        kind = found[0].partition(":")[0]
        if kind != heading:
            heading = kind
            lines += ["", f"## Files of kind {kind}"]
        first = found[0].partition(": ")[2]
        lines += [
            "",
            f"### {_title(first)} {{ #{_anchor(section)} }}",
            "",
            _prose(inspect.getdoc(section) or ""),
        ]
        also = [place for place in dict.fromkeys(found[1:]) if place.partition(": ")[2] != first]
        if also:
            shown = ", ".join(f"`{place}`" for place in also[:4])
            lines += ["", f"Also at {shown}{' and elsewhere' if len(also) > 4 else ''}."]
        lines += ["", "| key | type | default | what for | example |", "|---|---|---|---|---|"]
        lines += [_row(section, name) for name in section.model_fields]
    return "\n".join(lines) + "\n"


def _title(place: str) -> str:
    return place[0].upper() + place[1:] if place.startswith("the ") else f"`{place}`"


def _anchor(section: type[BaseModel]) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", section.__name__).lower()


def _row(section: type[BaseModel], name: str) -> str:
    field = section.model_fields[name]
    part = _schema(section)["properties"][name]
    words = attribute_docs(section).get(name) or ("Which form of section this is." if name == "kind" else "")
    default = "**required**" if field.is_required() else _value(part.get("default"), part)
    cells = (f"`{name}`", _type(part), default, _prose(words), _value(example_of(section, name), part))
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


@cache
def _schema(section: type[BaseModel]) -> dict[str, Any]:
    schema = section.model_json_schema()
    return schema if "properties" in schema else schema["$defs"][section.__name__]


def _type(part: dict[str, Any]) -> str:
    """A type in words, from its JSON schema."""
    if "$ref" in part:
        return _link(part["$ref"])
    if members := part.get("anyOf") or part.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(member) for member in members if member.get("type") != "null"))
    if "const" in part:
        return f"`{_yaml(part['const'])}`"
    if "enum" in part:
        return ", ".join(f"`{_yaml(item)}`" for item in part["enum"])
    if part.get("type") == "array":
        if "prefixItems" in part:
            return "[" + ", ".join(_type(item) for item in part["prefixItems"]) + "]"
        return f"list of {_type(part['items'])}"
    if part.get("type") == "object":
        inner = part.get("additionalProperties")
        return f"name: {_type(inner)}" if isinstance(inner, dict) else "mapping"
    if "type" not in part:
        return "anything"
    words = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text"}
    limits = [
        f"{sign} {part[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in part
    ]
    return " ".join([words[part["type"]], *limits])


def _link(reference: str) -> str:
    name = reference.rpartition("/")[2]
    anchor = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
    return f"[{name}](#{anchor})"


def _yaml(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        .split("\n...")[0]
        .strip()
    )


def _value(value: Any, part: dict[str, Any]) -> str:
    """A value as it is written in a file; of a section its own keys say more."""
    of_sections = "$ref" in json.dumps(part)
    text = "absent" if value is None else _yaml(value)
    if of_sections and (len(text) > 60 or (value is None and "default" not in part)):
        return "see there"
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


def _prose(text: str) -> str:
    """Docstring to Markdown: two backticks become one, a role the name it refers to."""
    text = re.sub(r":\w+:`~?([\w.]+)`", lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)


def example_of(section: type[BaseModel], name: str) -> Any:
    """Return a value that a key may have, best one that is not its default; None where there is none to be had.

    From docs/examples.yaml, else from the shipped configurations, else from what docs/examples.yaml says of any
    section with such a key, else from its type.
    """
    if name == "kind" and (kind := kind_of(section)):
        return kind
    own = _own_examples()
    for found in (
        own.get(section.__name__, {}).get(name),
        _shipped().get((section.__name__, name)),
        own["any"].get(name),
    ):
        if found is not None:
            return found
    part = _schema(section)["properties"][name]
    members = [part, *part.get("anyOf", [])]
    default = part.get("default")
    if any(member.get("type") == "boolean" for member in members):
        return default is not True
    for member in members:
        if others := [item for item in member.get("enum", []) if item != default]:
            return others[0]
    return default if default not in ([], {}, "") else None


@cache
def _own_examples() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))


@cache
def _shipped() -> dict[tuple[str, str], Any]:
    """The shortest value of each key in any shipped configuration."""
    found: dict[tuple[str, str], Any] = {}
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        if path.parent.name == "accelerate":
            continue
        config = load_config(path).config
        given = yaml.safe_load(to_yaml(config.model_copy()))
        for key, value in _keys(config, given):
            if value not in (None, [], {}) and len(_yaml(value)) < len(_yaml(found.get(key, "x" * 61))):
                found[key] = value
    return found


def _keys(section: BaseModel, given: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    """(section, key) and value of every key that a configuration sets, in all of its sections."""
    for name in section.model_fields_set & set(given):
        value = getattr(section, name)
        yield (type(section).__name__, name), given[name]
        members = value if isinstance(value, list | tuple) else [value]
        below = given[name] if isinstance(value, list | tuple) else [given[name]]
        if isinstance(value, dict):
            members, below = list(value.values()), list(given[name].values())
        for member, inner in zip(members, below, strict=False):
            if isinstance(member, BaseModel) and isinstance(inner, dict):
                yield from _keys(member, inner)


def keys_without_example() -> list[tuple[str, str]]:
    """Return (section, key) of every key that has none and is no section, whose own keys have theirs."""
    every = {section for model in KINDS.values() for _, section in sections(model)}
    return sorted(
        (section.__name__, name)
        for section in every
        for name in section.model_fields
        if example_of(section, name) is None
        and "$ref" not in json.dumps(_schema(section)["properties"][name])
    )


# --- every verb ---------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return the page of all verbs with their arguments and options."""
    lines = [
        "# Every command",
        "",
        "Made from the code when this site was built; `rembed VERB --help` says the same. Exit codes: 0 done, 2 bad input,",
        "3 something missing on the machine, 130 interrupted, 1 anything else.",
    ]
    whole = typer.main.get_command(app)
    context = whole.make_context("rembed", [], resilient_parsing=True)
    for verb in whole.list_commands(context):  # ty: ignore[unresolved-attribute]
        command = whole.get_command(context, verb)  # ty: ignore[unresolved-attribute]
        lines += ["", f"## rembed {verb} {{ #{verb} }}", ""]
        if inner := getattr(command, "commands", None):
            lines.append(_help(command.help))
            for name, below in inner.items():
                lines += [
                    "",
                    f"### rembed {verb} {name} {{ #{verb}-{name} }}",
                    "",
                    *_command(f"{verb} {name}", below),
                ]
        else:
            lines += _command(verb, command)
    return "\n".join(lines) + "\n"


def _help(text: str | None) -> str:
    return _prose((text or "").strip())


def _command(words: str, command: Any) -> list[str]:
    context = command.make_context(f"rembed {words}", [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"```text\nrembed {words} {usage}\n```", "", _help(command.help), ""]
    rows = []
    for parameter in command.params:
        if parameter.name in ("help", "install_completion", "show_completion"):
            continue
        named = ", ".join([*parameter.opts, *parameter.secondary_opts])
        argument = parameter.param_type_name == "argument"
        shown = parameter.metavar or (parameter.name or "").upper() if argument else named
        default = parameter.default
        plain = isinstance(default, str | int | float) and not isinstance(default, bool) and default != ""
        said = f"`{default}`" if plain else ("**required**" if parameter.required else "")
        text = _prose(getattr(parameter, "help", None) or "")
        rows.append(f"| `{shown}` | {said} | {text} |".replace("\n", " "))
    if rows:
        escaped = [re.sub(r"(?<=\w)\|(?=\w)", r"\\|", row) for row in rows]
        lines += ["| | default | |", "|---|---|---|", *escaped]
    return lines


# --- every metric -------------------------------------------------------------------------------------


def metrics_page() -> str:
    """Return the page of all metrics: question, definition, formula, invariances, an example."""
    lines = [
        "# Every metric",
        "",
        "Made from the code when this site was built. All are functions of `reasoning_embedding.hrsa`; rows in, a frozen",
        "result out. `hrsa.with_inference` adds an interval over texts and a permutation null;",
        "[Calibration](../calibration.md) says by simulation how often those are wrong.",
        "",
        "What each must ignore (a change of one model that leaves the value as it is) and must notice:",
        "",
        "| metric | " + " | ".join(TRANSFORMATIONS) + " |",
        "|---" * (len(TRANSFORMATIONS) + 1) + "|",
    ]
    for name, spec in METRICS.items():
        marks = [
            "ignores" if t in spec.invariant_to else "notices" if t in spec.sensitive_to else ""
            for t in TRANSFORMATIONS
        ]
        lines.append(f"| [{name}](#{name}) | " + " | ".join(marks) + " |")
    level = None
    for name, spec in METRICS.items():
        if spec.level is not level:
            level = spec.level
            lines += [
                "",
                f"## {level.name.capitalize()}",
                "",
                f"{level.question[0].upper()}{level.question[1:]}",
            ]
        lines += ["", f"### {name} {{ #{name} }}", "", *_metric(spec)]
    return "\n".join(lines) + "\n"


def _metric(spec: MetricSpec) -> list[str]:
    parts = _numpy_sections(inspect.getdoc(spec.function) or "")
    found = example_metric(spec)
    chance = "has no closed form: ask for a null" if found.chance is None else f"is {found.chance:.3g}"
    lines = [_prose(parts[""]), "", f"**Definition.** {_prose(found.definition)}"]
    if "Notes" in parts:
        lines += ["", f"**Formula and source.** {_prose(parts['Notes'])}"]
    meaning = "small is similar" if spec.distance else "large is similar"
    sides = "one model" if spec.level.name == "spectrum" else f"two models; {meaning}"
    lines += [
        "",
        f"**Reading it.** Takes {sides}. Ignores {', '.join(t for t in TRANSFORMATIONS if t in spec.invariant_to)}; "
        f"notices {', '.join(t for t in TRANSFORMATIONS if t in spec.sensitive_to)}. Of {_EXAMPLE} it is "
        f"{found.value:.3g}; the value expected of rows that have nothing to do with each other {chance}. "
        f"{_resampling(spec)}",
    ]
    if "Examples" in parts:
        lines += ["", f"```pycon\n{parts['Examples']}\n```"]
    return lines


def _resampling(spec: MetricSpec) -> str:
    if spec.name in ("debiased_linear_cka", "unit_row_cka"):
        return "Its interval is a jackknife: every text is left out once."
    if spec.name in ("knn_overlap", "cknna"):
        return "Its interval comes from both halves of random splits of the texts, with neighbours looked for anew."
    if spec.name == "linear_cka":
        return "Its interval holds the mean at this number of rows, not the value of the population: quote the debiased one."
    return "Its interval is a bootstrap over texts."


def example_metric(spec: MetricSpec) -> hrsa.Metric:
    """Return a metric of the rows that the page's example speaks of."""
    random = np.random.RandomState(0)
    x = random.randn(300, 32) * np.arange(1, 33) ** -0.5
    y = (x + 0.2 * random.randn(300, 32)) @ np.linalg.qr(random.randn(32, 32))[0]
    if spec.level.name == "spectrum":
        return spec.function(x)
    if spec.level.name == "function":
        return spec.function(x, y, (x[:, 0] > 0).astype(int))
    return spec.function(x, y)


def _numpy_sections(text: str) -> dict[str, str]:
    """Sections of a docstring by heading; what stands before them under the empty one."""
    pieces = re.split(r"^(\w[\w ]*)\n-{3,}$", text, flags=re.MULTILINE)
    return {"": pieces[0].strip()} | {
        heading: body.strip() for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)
    }


# --- notebooks ----------------------------------------------------------------------------------------


def notebook_page(path: Path) -> str:
    """Return a notebook as a page: its texts, and its code as blocks."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    where = f"The notebook is `docs/notebooks/{path.name}`; the tests run it."
    return "\n\n".join([parts[0], where, *parts[1:]]) + "\n"
