"""What ``python -m benchmarks train`` trains on: triples cut from the sources of Python's standard library."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Names of the two mixes: token counts far apart, and short even ones.
MIXES = ("wide", "narrow")
MAX_TOKENS = 512
_SPAN = 6 * MAX_TOKENS  # characters that surely hold the longest text
Triple = tuple[str, str, str]


@dataclass(frozen=True)
class Function:
    """A documented function, as places in its module.

    Attributes
    ----------
    source : str
        The whole module.
    start, docstring, body : int
        Characters before its ``def``, its docstring and the code after that.
    """

    source: str
    start: int
    docstring: int
    body: int


def standard_library_functions(count: int) -> list[Function]:
    """Return the first `count` documented functions of the standard library, by path and line."""
    found: list[Function] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        if source.isascii():  # offsets of ast count bytes
            found += _functions(source)
        if len(found) >= count:
            break
    return found[:count]


def _functions(source: str) -> Iterator[Function]:
    lines = [0, *np.cumsum([len(line) for line in source.splitlines(keepends=True)]).tolist()]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
            docstring, code = node.body[0], node.body[1]
            places = [lines[item.lineno - 1] + item.col_offset for item in (node, docstring, code)]
            if places[0] + _SPAN < len(source):
                yield Function(source, *places)


def text_lengths(mix: str, count: int) -> np.ndarray:
    """Tokens of `count` texts.

    Notes
    -----
    ``wide`` is log-normal around a median of 94 tokens with sigma 0.7, cut to 10 .. 512: its mean is about
    120, and the longest texts of a batch reach 512. ``narrow`` is normal, 48 +- 8, cut to 24 .. 72.
    """
    rng = np.random.default_rng(0)
    if mix == "wide":
        return np.clip(rng.lognormal(4.54, 0.7, count), 10, MAX_TOKENS).astype(int)
    return np.clip(rng.normal(48, 8, count), 24, 72).astype(int)


def make_triples(
    functions: list[Function], mix: str, count: int, tokenizer: PreTrainedTokenizerBase
) -> list[Triple]:
    """Cut `count` (query, positive, hard negative) triples of distinct texts to the lengths of a mix.

    The query begins at a function's docstring, the positive at its code, the negative at the ``def`` of
    another; where a piece is shorter than its length, what follows it in the module is taken too.
    """
    starts = [
        text
        for index in range(count)
        for text in (
            functions[index % len(functions)].source[functions[index % len(functions)].docstring :],
            functions[index % len(functions)].source[functions[index % len(functions)].body :],
            functions[(index + 1) % len(functions)].source[functions[(index + 1) % len(functions)].start :],
        )
    ]
    texts = [
        # The number keeps texts apart where the library has fewer functions than asked for.
        _cut(f"{place} {text[:_SPAN]}", int(length), tokenizer)
        for place, (text, length) in enumerate(zip(starts, text_lengths(mix, 3 * count), strict=True))
    ]
    return list(zip(texts[::3], texts[1::3], texts[2::3], strict=True))


def _cut(text: str, tokens: int, tokenizer: PreTrainedTokenizerBase) -> str:
    offsets = tokenizer(text, truncation=True, max_length=tokens, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    return text[: offsets[-1][1]]
