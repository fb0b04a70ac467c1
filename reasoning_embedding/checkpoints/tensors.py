"""Weights of a folder, a tensor at a time: safetensors, in one file or in shards."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: Bytes of one file; who writes holds so much in memory.
SHARD_BYTES = 4_000_000_000
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "BOOL": torch.bool,
}


class TensorFolder:
    """The tensors of a model folder; nothing is read before it is asked for.

    Parameters
    ----------
    path : Path
        Holds ``model.safetensors``, or its shards and their index.
    heads : sequence of str
        Folders below it that hold the weights of heads; a tensor there is named with its folder before it
        (``2_Dense/linear.weight``).

    Raises
    ------
    InputError
        If the weights are not there, incomplete, or not safetensors.
    """

    def __init__(self, path: Path, heads: Sequence[str] = ()) -> None:
        self.path = path
        self.heads = tuple(heads)
        if (path / INDEX).is_file():
            self._files: dict[str, str] = self._read_index()
        elif (path / WHOLE).is_file():
            self._files = dict.fromkeys(self._open(WHOLE).keys(), WHOLE)
        else:
            raise InputError(
                f"no weights: neither {WHOLE} nor {INDEX} is here",
                where=str(path),
                todo="name a complete checkpoint in safetensors; one that is still being written has another name",
            )

        for head in self.heads:
            file = f"{head}/{WHOLE}"
            if not (path / file).is_file():
                raise InputError(
                    f"the weights of this head are missing ({WHOLE})",
                    where=str(path / head),
                    todo="save or download the model again",
                )
            self._files |= {f"{head}/{name}": file for name in dict.fromkeys(self._open(file).keys())}

    @property
    def names(self) -> list[str]:
        """Names of the tensors, in order."""
        return sorted(self._files)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return {name: tuple(self._slice(name).get_shape()) for name in self.names}

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype]:
        """Dtypes by name.

        Raises
        ------
        InputError
            If a tensor is quantized.
        """
        found = {name: self._slice(name).get_dtype() for name in self.names}
        if odd := next((name for name, dtype in found.items() if dtype not in _DTYPES), None):
            raise InputError(
                f"{odd} has dtype {found[odd]}; quantized weights have no arithmetic",
                where=str(self.path),
                todo="name the model's folder before quantization",
            )
        return {name: _DTYPES[dtype] for name, dtype in found.items()}

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        return self._open(self._files[name]).get_tensor(self._within(name))

    def size(self, name: str) -> int:
        """Return the bytes of a tensor."""
        return math.prod(self.shapes[name]) * self.dtypes[name].itemsize

    def _slice(self, name: str) -> Any:
        return self._open(self._files[name]).get_slice(self._within(name))

    def _within(self, name: str) -> str:
        """A tensor's name in its own file."""
        return name if self.head_of(name) is None else name.partition("/")[2]

    def head_of(self, name: str) -> str | None:
        """Return the folder of the head that a tensor belongs to; None of the decoder's."""
        folder = name.partition("/")[0]
        return folder if folder in self.heads else None

    def _open(self, file: str) -> Any:
        try:
            return safe_open(self.path / file, framework="pt")
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"the weights cannot be read: {error}",
                where=str(self.path / file),
                todo="save or download the checkpoint again",
            ) from error

    def _read_index(self) -> dict[str, str]:
        path = self.path / INDEX
        try:
            files = dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "this index of shards cannot be read", where=str(path), todo="download the checkpoint again"
            ) from error
        for file in sorted(set(files.values())):
            # A shard is a file of this folder: an index must not lead out of it.
            if not isinstance(file, str) or Path(file).name != file or not (self.path / file).is_file():
                raise InputError(
                    f"the shard {file!r} is not here", where=str(path), todo="download the checkpoint again"
                )
        return files


class TensorWriter:
    """Writes tensors in the order of a plan, a file as soon as it is full.

    Parameters
    ----------
    folder : Path
        Where the files go.
    sizes : dict of str to int
        Bytes of each tensor, in the order in which they will come.
    shard_bytes : int
        Most bytes of a file, unless one tensor alone has more.
    """

    def __init__(self, folder: Path, sizes: dict[str, int], shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = folder
        self._plan = split_state_dict_into_shards_factory(
            sizes,
            get_storage_size=lambda size: size,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=shard_bytes,
        )
        self._waiting: dict[str, dict[str, Tensor]] = defaultdict(dict)

    def add(self, name: str, tensor: Tensor) -> None:
        """Take the next tensor."""
        file = self._plan.tensor_to_filename[name]
        self._waiting[file][name] = tensor.contiguous()
        if len(self._waiting[file]) == len(self._plan.filename_to_tensors[file]):
            save_file(self._waiting.pop(file), self.folder / file, metadata={"format": "pt"})

    def close(self) -> None:
        """Write the index, where there are several files."""
        if self._plan.is_sharded:
            index = {"metadata": self._plan.metadata, "weight_map": self._plan.tensor_to_filename}
            write_json(self.folder / INDEX, index)


def pieces(tensors: Iterable[Tensor], elements: int = 1 << 20) -> Iterable[tuple[Tensor, ...]]:
    """Yield the same stretch of every tensor in float64, so that a large one needs no large copy."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), elements):
        yield tuple(tensor[start : start + elements].double() for tensor in flat)
