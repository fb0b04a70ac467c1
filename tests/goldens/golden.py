"""Named cases whose numbers are kept in a file and compared: what every set of goldens shares.

A case is a function without arguments that returns dataclasses, arrays, mappings, sequences and scalars. The file
holds ten digits of every number and a summary of every large array; strings, whole numbers and structure must be
equal, other numbers within the case's tolerance.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

#: Arrays of at most this many entries are kept whole; of larger ones a summary is.
_WHOLE = 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A function and how near its numbers must come: ``|a - b| <= max(rel * max(|a|, |b|), abs)``.

    Parameters
    ----------
    compute : callable
        Gives the values.
    rel, abs : float
        Tolerances.
    arbitrary : str
        Paths (a regular expression) of numbers that the input does not determine: rounding does, so that they are
        compared bit for bit on one machine only.
    """

    compute: Callable[[], Any]
    rel: float
    abs: float
    arbitrary: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """A place where two recordings are not the same; `size` is relative, None where it is not of numbers."""

    path: str
    size: float | None
    text: str


class Goldens:
    """Cases by name and the file of their values."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cases: dict[str, Case] = {}

    def case(self, name: str, *, rel: float = 1e-6, abs: float = 1e-9, arbitrary: str = "") -> Callable:
        """Register a function without arguments."""

        def register(function: Callable[[], Any]) -> Callable[[], Any]:
            assert name not in self.cases, name
            self.cases[name] = Case(function, rel, abs, arbitrary)
            return function

        return register

    def stored(self) -> dict[str, Any]:
        """Values of the file, by case."""
        return json.loads(self.file.read_text(encoding="utf-8"))

    def write(self, file: Path, values: Mapping[str, Any]) -> None:
        """Write values, a case a line."""
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(values.items()))
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    def differences(self, name: str, expected: Any, found: Any) -> list[Difference]:
        """Places where a case differs from what was stored, numbers that are near enough included."""
        arbitrary = self.cases[name].arbitrary
        floor = self.cases[name].abs / self.cases[name].rel
        return [
            difference
            for difference in _walk(expected, found, "", floor)
            if difference.size is None or not (arbitrary and re.search(arbitrary, difference.path))
        ]

    def check(self, name: str, expected: Any) -> None:
        """Fail where a case is not what was stored."""
        case = self.cases[name]
        found = json.loads(json.dumps(plain(case.compute())))
        wrong = [
            d for d in self.differences(name, expected, found) if d.size is None or not d.size <= case.rel
        ]
        assert not wrong, f"{name}: {len(wrong)} differences\n" + "\n".join(d.text for d in wrong[:20])

    def main(self) -> None:
        """Print the largest difference of each case, or write the file."""
        parser = argparse.ArgumentParser(description="Compare the cases with the file, or write it.")
        parser.add_argument(
            "--write", action="store_true", help="write the file instead of comparing with it"
        )
        parser.add_argument(
            "--exact", type=Path, help="a file of full precision instead; written if it is absent"
        )
        parser.add_argument("--only", default="", help="cases whose names hold this text")
        parser.add_argument("--threads", type=int, default=1)
        arguments = parser.parse_args()
        _limit_threads(arguments.threads)
        exact, file = arguments.exact is not None, arguments.exact or self.file
        write = arguments.write or (exact and not file.exists())
        stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        computed = {name: case for name, case in self.cases.items() if arguments.only in name}
        values = {name: plain(case.compute(), exact=exact) for name, case in computed.items()}
        if write:
            kept = {name: stored[name] for name in self.cases if name in stored}
            self.write(file, {**kept, **values})
            print(f"{len(values)} cases written to {file}")
            return
        for name, value in values.items():
            if name not in stored:
                print(f"{name}: not in the file")
                continue
            self._print(name, stored[name], json.loads(json.dumps(value)), exact=exact)
        for name in sorted(set(stored) - set(self.cases)):
            print(f"{name}: in the file without a case")

    def _print(self, name: str, expected: Any, found: Any, *, exact: bool) -> None:
        if exact and expected == found:
            print(f"{name}: equal")
            return
        every = list(_walk(expected, found, "", 0.0)) if exact else self.differences(name, expected, found)
        sizes = [(d.size, d.path) for d in every if d.size is not None]
        worst, path = max(sizes, default=(0.0, ""))
        print(f"{name}: {worst:.1e} {path}" + ("" if exact else f" (allowed {self.cases[name].rel:.0e})"))
        for difference in [d for d in every if d.size is None][:10]:
            print(f"    {difference.text}")


def plain(value: Any, *, exact: bool = False) -> Any:
    """Values as JSON has them: ten digits and summaries, or everything if `exact`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value))
        return {name: plain(getattr(value, name), exact=exact) for name in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(one, exact=exact) for key, one in value.items()}
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim:
        whole = exact or value.size <= _WHOLE
        return plain(value.tolist(), exact=exact) if whole else plain(_summary(value), exact=exact)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [plain(one, exact=exact) for one in value]
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return value if exact else float(f"{value:.10g}")
    assert value is None or isinstance(value, (str, int)), type(value)
    return value


def _summary(array: np.ndarray) -> dict[str, Any]:
    """Shape, type, ends, norm and two sums of an array's finite entries, one of which depends on their order."""
    flat = array.ravel().astype(np.float64)
    finite = np.where(np.isfinite(flat), flat, 0.0)
    order = np.cos(np.arange(len(flat)))
    whole = array.dtype.kind in "iub"
    return {
        "shape": list(array.shape),
        "kind": array.dtype.kind,
        "undefined": int((~np.isfinite(flat)).sum()),
        "ends": [flat[0], flat[-1]],
        "sum": int(array.sum()) if whole else finite.sum(),
        "norm": np.sqrt(finite @ finite),
        "ordered": finite @ order,
    }


def _walk(expected: Any, found: Any, path: str, floor: float) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(found, dict):
        if list(expected) != list(found):
            gone, new = [k for k in expected if k not in found], [k for k in found if k not in expected]
            yield Difference(path, None, f"{path}: without {gone}, new {new}, or another order")
        for key in expected:
            if key in found:
                yield from _walk(expected[key], found[key], f"{path}/{key}", floor)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield Difference(path, None, f"{path}: {len(found)} entries in the place of {len(expected)}")
        for index, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from _walk(one, other, f"{path}/{index}", floor)
    elif type(expected) is float and type(found) is float:
        if expected != found:
            size = abs(expected - found) / max(abs(expected), abs(found), floor)
            yield Difference(path, size, f"{path}: {found!r} in the place of {expected!r} ({size:.1e})")
    elif type(expected) is not type(found) or expected != found:
        yield Difference(path, None, f"{path}: {found!r} in the place of {expected!r}")


def _limit_threads(count: int) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count)
