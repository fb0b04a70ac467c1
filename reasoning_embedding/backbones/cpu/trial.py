"""Try a built library of elementwise kernels, where a crash costs nothing.

A script, not a module of the package: ``python -I -S trial.py LIBRARY BYTES`` in a process of its own, with nothing but
the standard library, so that it takes milliseconds. BYTES is the size of the compute dtype's numbers: 4 for float32,
2 for bfloat16. It ends with 0 where the kernels compute what they should, and with 1 where they do not.
"""

import array
import ctypes
import math
import struct
import sys

_ROWS, _COLUMNS = 3, 37  # no multiple of any vector's width: the rest of a row is tried too


def _encode(values: list[float], size: int) -> array.array:
    if size == 4:
        return array.array("f", values)
    words = struct.unpack(f"{len(values)}I", struct.pack(f"{len(values)}f", *values))
    return array.array("H", [(word + 0x8000) >> 16 for word in words])


def _decode(numbers: array.array, size: int) -> list[float]:
    if size == 4:
        return list(numbers)
    return list(
        struct.unpack(f"{len(numbers)}f", struct.pack(f"{len(numbers)}I", *(n << 16 for n in numbers)))
    )


def _softmax(row: list[float], scale: float) -> list[float]:
    raised = [math.exp((value - max(row)) * scale) for value in row]
    return [value / sum(raised) for value in raised]


def _swiglu(row: list[float]) -> list[float]:
    half = len(row) // 2
    return [g / (1 + math.exp(-g)) * u for g, u in zip(row[:half], row[half:])]  # noqa: B905


def _norm(row: list[float], eps: float) -> list[float]:
    scale = 1 / math.sqrt(sum(value * value for value in row) / len(row) + eps)
    return [value * scale for value in row]


def main() -> int:
    """Call three kernels on a few numbers and compare with Python's own arithmetic."""
    library, size = ctypes.CDLL(sys.argv[1]), int(sys.argv[2])
    rows, columns, one = ctypes.c_long(_ROWS), ctypes.c_long(_COLUMNS), ctypes.c_int(1)

    def at(numbers: array.array) -> ctypes.c_void_p:
        return ctypes.c_void_p(numbers.buffer_info()[0])

    wide = _encode([math.sin(3 * i) * 4 for i in range(_ROWS * 2 * _COLUMNS)], size)
    given = _decode(wide, size)
    parts = [given[row * 2 * _COLUMNS : (row + 1) * 2 * _COLUMNS] for row in range(_ROWS)]
    plain = array.array("f", given[: _ROWS * _COLUMNS])
    short = [list(plain[row * _COLUMNS : (row + 1) * _COLUMNS]) for row in range(_ROWS)]
    out = _encode([0.0] * (_ROWS * _COLUMNS), size)
    found: list[list[float]] = []
    scores = wide[: _ROWS * _COLUMNS]
    library.softmax(rows, columns, at(scores), ctypes.c_float(0.5), one)
    found.append(_decode(scores, size))
    library.swiglu(rows, columns, at(wide), at(out), one)
    found.append(_decode(out, size))
    gain = array.array("f", [1.0] * _COLUMNS)
    nothing = ctypes.c_void_p(None)
    library.add_norm(rows, columns, at(plain), nothing, at(gain), ctypes.c_float(1e-3), nothing, at(out), one)
    found.append(_decode(out, size))
    wanted = [
        [value for row in short for value in _softmax(row, 0.5)],
        [value for row in parts for value in _swiglu(row)],
        [value for row in short for value in _norm(row, 1e-3)],
    ]
    allowed = 1e-4 if size == 4 else 1e-2
    near = all(
        abs(a - b) <= allowed * (1 + abs(b))
        for pair in zip(found, wanted)  # noqa: B905
        for a, b in zip(*pair)  # noqa: B905
    )
    return 0 if near else 1


if __name__ == "__main__":
    sys.exit(main())
