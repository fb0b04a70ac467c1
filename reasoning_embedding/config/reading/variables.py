"""Environment variables in configuration text: ``${NAME}`` and ``${NAME:-default}``."""

from __future__ import annotations

import os
import re

from reasoning_embedding.secrets import is_secret_name

from .tree import Place, Problems

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^{}]*)\}|\$\{")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


def expand(text: str, place: Place, problems: Problems) -> str:
    """Replace every reference by the variable's value.

    ``${NAME:-default}`` falls back when NAME is unset or empty, as in a shell; ``$${`` is a literal
    ``${``. The result stays text: a number cannot come from the environment.

    Parameters
    ----------
    text : str
        A string scalar.
    place : Place
        Where it was written.
    problems : Problems
        Receives unset variables, secrets and malformed references; those stay in the text as they are.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        inside = _INSIDE.fullmatch(match["inside"]) if match["inside"] is not None else None
        if inside is None:
            problems.add(
                place, f"{text!r}: write ${{NAME}} or ${{NAME:-default}} (a literal '${{' is written '$${{')"
            )
            return match[0]
        if is_secret_name(inside["name"]):
            problems.add(
                place,
                f"{inside['name']} is a secret by its name, and configurations are written into run folders; leave it in "
                "the environment, where libraries find it by themselves, or give what is no secret another name",
            )
            return match[0]
        found = os.environ.get(inside["name"])
        if inside["default"] is not None:
            return found or inside["default"][2:]
        if found is None:
            problems.add(
                place,
                f"the environment variable {inside['name']} is not set; export it, or give a default: "
                f"${{{inside['name']}:-...}}",
            )
            return match[0]
        return found

    return _REFERENCE.sub(value, text)


def escape(text: str) -> str:
    """Write `text` so that :func:`expand` gives it back."""
    return text.replace("${", "$${")
