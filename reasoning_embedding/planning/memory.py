"""Memory that a batch asks for, on paper: activations, copies, and what works on them."""

from __future__ import annotations

from dataclasses import dataclass

from reasoning_embedding import config

from .adapters import adapter_bytes
from .flops import DecoderShape
from .state import all_parameters


@dataclass(frozen=True)
class Kept:
    """Bytes a token and layer that a forward keeps, for each element of four widths.

    Attributes
    ----------
    hidden, query, key_value, intermediate : float
        For the residual stream, all query heads, all key (or value) heads, and the MLP.
    """

    hidden: float
    query: float
    key_value: float
    intermediate: float

    def bytes(self, shape: DecoderShape) -> float:
        """Bytes a token of all layers."""
        return shape.layers * sum(getattr(self, name) * size for name, size in shape.widths.items())


#: Outputs of matrix products alone, in bf16: q, k, v, attention, o; gate, up, down.
PRODUCTS = Kept(4, 4, 4, 4)
#: All that compiled layers keep, with a bf16 residual stream: the products, both normalised inputs, rotated
#: queries and keys, the activated gate and its product.
COMPILED = Kept(8, 6, 6, 8)
#: What a layer keeps that runs as one function on a CPU, by bytes of an element it computes: its input in float32,
#: and what matrix products give: q, k, v, attention and its projection; gate and up.
FUSED = {2: Kept(6, 4, 4, 4), 4: Kept(8, 8, 8, 8)}
#: What a stock layer keeps with frozen weights, by bytes of an element that products compute in. Without a gradient of
#: its own no matrix needs its input, and no norm its normalised one.
FROZEN = {2: Kept(8, 8, 8, 6), 4: Kept(8, 12, 12, 12)}
#: Bytes of attention weights and of their gradient that such a layer makes at a time, by bytes of an element.
_FUSED_SCORES = 2 << 21


def kept_by(training: config.Training, *, fused: bool = False) -> Kept:
    """Return what the layers keep under a recipe.

    Parameters
    ----------
    training : config.Training
        Precision, checkpointing and compilation.
    fused : bool
        Whether layers run as one function each, as on a CPU; else they are stock layers, or compiled.

    Notes
    -----
    Counted from the tensors that autograd saves in a Qwen3 layer (norms: input, normalised, output; q and k:
    product, normalised, rotated; v; attention; gate, its activation, up, their product). Under bf16 autocast
    the residual stream stays in float32, norms compute in float32, and products are saved in bf16. What adapters keep
    beside frozen layers is not in it (:func:`~.cost_adapters.adapter_bytes`); compiled layers are taken to keep as much
    as trained ones.
    """
    half = training.precision == "bf16"
    if training.activation_checkpointing in (True, "offload"):
        return Kept(0 if training.activation_checkpointing == "offload" else 4, 0, 0, 0)
    if fused:
        return FUSED[2 if half else 4]
    if training.activation_checkpointing == "selective":
        return Kept(8, 4, 4, 4) if half else Kept(12, 8, 8, 8)
    if training.compile and half:
        return Kept(COMPILED.hidden + 4, COMPILED.query, COMPILED.key_value, COMPILED.intermediate)
    if training.lora is not None:
        return FROZEN[2 if half else 4]
    return Kept(26, 12, 10, 8) if half else Kept(24, 20, 16, 16)


@dataclass(frozen=True)
class Load:
    """What one rank does in a step.

    Attributes
    ----------
    tokens : float
        Tokens of its share of the batch.
    stored : float
        Of these, tokens whose activations are kept until the backward pass.
    pack : float
        Tokens of its largest pack.
    texts, queries, documents : int
        Distinct texts, queries and candidates of the whole batch.
    """

    tokens: float
    stored: float
    pack: float
    texts: int
    queries: int
    documents: int


def activation_bytes(shape: DecoderShape, training: config.Training, *, fused: bool = False) -> float:
    """Return the bytes that a stored token keeps: all layers, their adapters, the last norm and the pooled states."""
    kept = kept_by(training, fused=fused).bytes(shape) + 12.0 * shape.hidden
    if training.lora is None or training.activation_checkpointing in (True, "offload"):
        return kept
    selective = training.activation_checkpointing == "selective"
    wide = 2 if training.precision == "bf16" else 4
    return kept + adapter_bytes(shape, training.lora, wide=wide, selective=selective)


def batch_memory(
    shape: DecoderShape,
    training: config.Training,
    load: Load,
    *,
    loss: config.InfoNCE,
    cast: bool = True,
    fused: bool = False,
) -> dict[str, float]:
    """Return the bytes of each rank that the batch asks for.

    Parameters
    ----------
    shape, training
        The backbone and its recipe.
    load : Load
        What the rank does in a step.
    loss : config.InfoNCE
        The rows of a tile, and what they are contrasted with.
    cast : bool
        Whether autocast copies the matrices; not where the engine gathers them in bf16.
    fused : bool
        As :func:`kept_by` takes it.

    Notes
    -----
    Working memory of a pack: what one layer makes again where layers are recomputed, the gradients of its MLP, and
    its input's. A pack that is not stored keeps its activations while its own backward pass runs. Under bf16
    autocast every stored pack holds its own bf16 copy of the matrices, unless the engine gathers them in bf16
    (`cast` false); where layers are recomputed, the one at work does. Layers that run as one function cast them in
    each pass, and hold two blocks of attention weights and another row of the MLP while they work. The loss holds a tile
    (:func:`loss_tile`) and four float32 copies of the embeddings (queries and documents, their gradient, the sum over
    ranks).
    """
    half = training.precision == "bf16"
    per_token = activation_bytes(shape, training, fused=fused)
    alive = max(load.stored, min(load.pack, load.tokens))  # a replayed pack is alive in its backward pass
    wide = 2 if half else 4
    working = load.pack * (4 * shape.hidden + 3 * wide * shape.intermediate)
    if fused:
        working += load.pack * (4 * shape.hidden + wide * shape.intermediate) + wide * _FUSED_SCORES
    if training.activation_checkpointing:
        # One layer is made again at a time; what was kept of it is part of what it then holds.
        plain = training.model_copy(update={"activation_checkpointing": False, "compile": False})
        again = activation_bytes(shape, plain) - per_token
        working += load.pack * again / shape.layers
    copied = 0.0
    if half and cast and not fused:
        matrices = all_parameters(shape, training.lora) - shape.vocabulary * shape.hidden
        held = (
            1 / shape.layers if training.activation_checkpointing else max(1.0, alive / max(load.pack, 1.0))
        )
        copied = 2.0 * matrices * held
    return {
        "activations": alive * per_token,
        "weight_copies": copied,
        "working": working,
        "loss": loss_tile(loss, load),
        "embeddings": 4.0 * 4 * (load.texts + load.queries + load.documents) * shape.hidden,
    }


def loss_tile(loss: config.InfoNCE, load: Load) -> float:
    """Return the bytes of one tile of the loss: its similarities, and what masks and a learnt temperature add.

    Notes
    -----
    Similarities of each row with all queries or documents of each direction, in float32. Where texts of a batch repeat,
    a mask of the documents that are known to answer and a copy without them, counted always; after that, all of them
    once more for the gradient of a learnt temperature.
    """
    columns = sum(
        load.documents if direction.endswith("_document") else load.queries for direction in loss.directions
    )
    again = 0.0 if loss.learn_temperature is None else 4.0 * columns
    return min(loss.tile_rows, load.queries) * (4.0 * columns + max(5.0 * load.documents, again))
