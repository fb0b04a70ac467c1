"""Hostile and broken contents of files, the same for the same number."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable
from typing import Any

#: What parsers have stumbled over.
SNIPPETS = [
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b"\r", b"\n\n", b"\t", b"\xc2\x85",
    b"---\n",
    b"9" * 400, b"9" * 5000, b"-1e308", b"1e999", b"NaN", b"-Infinity", b"0x" + b"f" * 3000, b"[" * 3000, b"{" * 3000,
    b'{"a":' * 2000, b"]" * 50, b"&a *a", b"*a", b"<<: *a", b"!!python/object/apply:os.system [x]", b"${HOME", b"${X:-",
    b"$${", b"~nobody/x", b'"\\0"', b"null", b"true", b"- - - -", b"? ", b"'", b'"', b"\\", b"%", b"@", b"`", b"|", b">-\n",
    "\u2028".encode(), "\U0001f9ec".encode(), "e\u0301".encode(), b"\x1b[2J", b"\x7f", b" " * 500, b"a" * 20000,
]  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return bytes with one to four changes: bits, cuts, repeats, snippets and exchanged lines."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        kind = chance.randrange(7)
        if kind == 0 and content:
            at = chance.randrange(len(content))
            content = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content = content[:at] + content[at + chance.randint(1, 40) :]
        elif kind in (3, 4):
            content = content[:at] + chance.choice(SNIPPETS) + content[at:]
        elif kind == 5:
            piece = content[at : at + chance.randint(1, 200)]
            content = content[:at] + piece * chance.randint(2, 20) + content[at:]
        else:
            lines = content.split(b"\n")
            one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            content = b"\n".join(lines)
    return content


def any_value(chance: random.Random, depth: int = 0) -> Any:
    """Return a value that JSON can write, mostly not the one a reader hopes for."""
    leaves: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.random() < 0.5,
        lambda: chance.choice([0, -1, 1, 2**31, 2**63, -(2**70), 10**400]),
        lambda: chance.choice([0.5, -0.0, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf]),
        lambda: chance.choice(
            ["", " ", "text", "\0", "\ud800", "a\ud800b", "\u2028", "x" * 3000, "${HOME}", "\x1b[2J"]
        ),
    ]
    if depth > 3 or chance.random() < 0.6:
        return chance.choice(leaves)()
    items = [any_value(chance, depth + 1) for _ in range(chance.randint(0, 4))]
    if chance.random() < 0.5:
        return items
    keys = ["query", "pos", "neg", "text", "_id", "id", "title", "", "a", "\ud800", "negative_1", "source"]
    return {chance.choice(keys): item for item in items}


def packed(content: bytes, chance: random.Random) -> bytes:
    """Return gzip of the content, sometimes cut or with a bit turned."""
    whole = gzip.compress(content, 1, mtime=0)
    return mutated(whole, chance) if chance.random() < 0.5 else whole


def json_lines(records: list[Any]) -> bytes:
    """One value a line, as Python writes it: NaN and lone surrogates too."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)
