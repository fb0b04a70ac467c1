"""Low-rank adapters on paper: which matrices get them, what they train, and what they keep."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from reasoning_embedding import config
from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError

from .shapes import DecoderShape


@dataclass(frozen=True)
class AdaptedMatrix:
    """A matrix of a decoder layer, by what goes in and what comes out.

    Attributes
    ----------
    source : str
        What goes in: the ``normed`` residual stream before attention, what is ``attended`` to, the stream
        ``before_mlp``, or the ``activated`` gate. Matrices of one source read one tensor.
    out : tuple of str
        Widths that come out, added up: keys of :attr:`.shapes.DecoderShape.widths`.
    """

    source: str
    out: tuple[str, ...]


#: Width of each source.
_SOURCES = {"normed": "hidden", "attended": "query", "before_mlp": "hidden", "activated": "intermediate"}
#: By the last part of a module's name: Llama's and its descendants', Phi-3's, GPT-NeoX's, Phi's.
MATRICES = {
    "q_proj": AdaptedMatrix("normed", ("query",)),
    "k_proj": AdaptedMatrix("normed", ("key_value",)),
    "v_proj": AdaptedMatrix("normed", ("key_value",)),
    "o_proj": AdaptedMatrix("attended", ("hidden",)),
    "gate_proj": AdaptedMatrix("before_mlp", ("intermediate",)),
    "up_proj": AdaptedMatrix("before_mlp", ("intermediate",)),
    "down_proj": AdaptedMatrix("activated", ("hidden",)),
    "qkv_proj": AdaptedMatrix("normed", ("query", "key_value", "key_value")),
    "query_key_value": AdaptedMatrix("normed", ("query", "key_value", "key_value")),
    "gate_up_proj": AdaptedMatrix("before_mlp", ("intermediate", "intermediate")),
    "dense": AdaptedMatrix("attended", ("hidden",)),
    "dense_h_to_4h": AdaptedMatrix("before_mlp", ("intermediate",)),
    "dense_4h_to_h": AdaptedMatrix("activated", ("hidden",)),
    "fc1": AdaptedMatrix("before_mlp", ("intermediate",)),
    "fc2": AdaptedMatrix("activated", ("hidden",)),
}
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def adapted(shape: DecoderShape, lora: config.Lora) -> list[AdaptedMatrix]:
    """Return the matrices of a layer that get adapters.

    Raises
    ------
    InputError
        For a name whose sizes are not known here.
    """
    if lora.target_modules == "all-linear":
        names = [*_ATTENTION, *(("gate_proj",) if shape.gated else ()), "up_proj", "down_proj"]
    else:
        names = sorted({name.rpartition(".")[2] for name in lora.target_modules})
    for name in names:
        if name not in MATRICES:
            raise InputError(
                f"the sizes of a module named {name!r} are not known here{did_you_mean(name, MATRICES)}",
                where="training.lora.target_modules",
                todo=f"a plan knows all-linear, {', '.join(MATRICES)}",
            )
    return [MATRICES[name] for name in names]


def adapter_parameters(shape: DecoderShape, lora: config.Lora) -> int:
    """Return the parameters of all adapters: rank x (columns + rows) of each matrix that has one."""
    wide = shape.widths
    sides = sum(
        wide[_SOURCES[one.source]] + sum(wide[out] for out in one.out) for one in adapted(shape, lora)
    )
    return shape.layers * lora.rank * sides


def adapter_bytes(shape: DecoderShape, lora: config.Lora, *, wide: int, selective: bool) -> float:
    """Return the bytes that adapters keep of a token in all layers, beside what frozen layers keep.

    Parameters
    ----------
    shape, lora
        The backbone and its adapters.
    wide : int
        Bytes of an element that products compute in: 4 in float32, 2 under bf16 autocast.
    selective : bool
        Whether products alone are kept.

    Notes
    -----
    The second factor of an adapter needs the first one's output, `rank` elements. The first needs its input: under
    autocast a bf16 copy of its own, with dropout one too, and a byte an element of the mask; in float32 without
    dropout adapters of one source share the tensor that they read. Kept products are the outputs of both factors.
    """
    sizes = shape.widths
    linears = adapted(shape, lora)
    kept = wide * lora.rank * len(linears)
    if selective:
        kept += wide * sum(sizes[out] for one in linears for out in one.out)
        return float(shape.layers * kept)
    readers: dict[str, int] = defaultdict(int)
    for one in linears:
        readers[one.source] += 1
    dropped = lora.dropout > 0
    for source, count in readers.items():
        copies = 1 if wide == 4 and not dropped else count
        kept += sizes[_SOURCES[source]] * (wide * copies + dropped * count)
    return float(shape.layers * kept)
