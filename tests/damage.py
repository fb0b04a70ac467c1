"""Files with a byte changed, and what reads them: the same numbers or a refusal, never others.

``SOAK_FLIPS`` sets how many places of each file are tried (the first is its middle, the others are drawn); ``SOAK_SEED``
draws the same ones again, and a failure prints it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reasoning_embedding.errors import ReasoningEmbeddingError

from .factories import flip

FLIPS = int(os.environ.get("SOAK_FLIPS", "1"))
SEED = int(os.environ.get("SOAK_SEED", str(random.randrange(10**6))))
#: Written for people; no program reads them, and the same command writes them anew.
_SHOWN = {"report", "logs", "paper"}


def reading(job: Callable[[], Any]) -> Any:
    """What a job gives; a refusal, which must name its place and its cure, stands in its stead."""
    try:
        return job()
    except ReasoningEmbeddingError as refusal:
        code, said = refusal.exit_code, str(refusal)
    assert code in (2, 3), said
    assert "/" in said, f"a refusal names its place: {said}"
    assert "-> " in said or ".yaml:" in said, f"a refusal names its cure, or the line to correct: {said}"
    return f"refused: {said}"


def damaged_files(folder: Path) -> Iterator[Path]:
    """Yield each file of a folder with a byte changed; it is whole again afterwards."""
    print(f"SOAK_SEED={SEED}")
    chance = random.Random(SEED)
    count = 0
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        if _SHOWN.intersection(file.relative_to(folder).parts):
            continue
        for number in range(FLIPS):
            size = file.stat().st_size
            place = size // 2 if number == 0 else chance.randrange(size)
            flip(file, place)
            yield file
            flip(file, place)
            count += 1
    print(f"{folder.name}: {count} places tried")


def is_refused(value: Any) -> bool:
    """Whether :func:`reading` met a refusal."""
    return isinstance(value, str) and value.startswith("refused: ")


def same_or_refused(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether every reader gave what it gave of the whole folder, or refused."""
    assert found.keys() == wanted.keys()
    return all(is_refused(value) or value == wanted[name] for name, value in found.items())
