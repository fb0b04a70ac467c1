"""The JSON schema of a configuration, with the sections' own words.

Pydantic can read the strings below attributes while classes are made, but that parses every module at
import and would cost a sixth of a configuration check; only an editor's schema needs them.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

from pydantic import BaseModel

from .reading.sections import sections


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of `model`, each key described by the string below its attribute."""
    schema = model.model_json_schema()
    parts = {**schema.get("$defs", {}), model.__name__: schema}
    for section in {section for _, section in sections(model)}:
        for name, text in attribute_docs(section).items():
            parts[section.__name__]["properties"][name].setdefault("description", text)
    return schema


def attribute_docs(section: type[BaseModel]) -> dict[str, str]:
    """Return the strings below the attributes of a section and of its bases, by attribute name.

    Examples
    --------
    >>> from reasoning_embedding.config import Training
    >>> attribute_docs(Training)["batch_size"]
    'Queries a step over all ranks.'
    """
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for first, second in itertools.pairwise(
            definition.body if isinstance(definition, ast.ClassDef) else []
        ):
            if (
                isinstance(first, ast.AnnAssign)
                and isinstance(first.target, ast.Name)
                and isinstance(second, ast.Expr)
                and isinstance(second.value, ast.Constant)
                and isinstance(second.value.value, str)
            ):
                found[first.target.id] = inspect.cleandoc(second.value.value)
    return found
