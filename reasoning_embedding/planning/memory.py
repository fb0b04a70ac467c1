"""Memory of each rank on paper: weights and optimizer under an engine, activations, the loss, and what waits on the host."""

from __future__ import annotations

from dataclasses import dataclass

from reasoning_embedding import config
from reasoning_embedding.config import EngineSettings

from .adapters import adapter_bytes, adapter_parameters
from .shapes import DecoderShape

#: Share of the free memory that activations are planned with; the rest is for fragments, the loss and surprises.
PLANNED_SHARE = 0.9
#: Bytes of optimizer state a trained parameter (Muon: of the body; its embeddings take AdamW's).
OPTIMIZER_BYTES = {"adamw": 8, "adamw8bit": 2, "muon": 4}


def trained_parameters(shape: DecoderShape, lora: config.Lora | None) -> int:
    """Return the parameters that have a gradient: all, or those of adapters and heads."""
    return shape.parameters if lora is None else adapter_parameters(shape, lora) + shape.readout_heads


def all_parameters(shape: DecoderShape, lora: config.Lora | None) -> int:
    """Return the parameters of backbone and adapters."""
    return shape.parameters + (0 if lora is None else adapter_parameters(shape, lora))


def fixed_memory(
    shape: DecoderShape, training: config.Training, engine: EngineSettings, ranks: int
) -> dict[str, float]:
    """Return the bytes on each rank's GPU that do not depend on the batch.

    Notes
    -----
    Weights, gradients and moments are float32. Gradients stay whole on every rank until the step's one reduction. Each
    rank has its part of what a sharded engine cuts. FSDP2 gathers two layers while they compute, in what they compute
    in, and the token embedding with them; without resharding all. DeepSpeed steps on a copy of the rank's part of the
    weights; its stage 3 lets as many gathered weights live as its file says, and holds a part of the gradients and a
    buffer to reduce them all the time.
    """
    parts = {"gradients": 4.0 * trained_parameters(shape, training.lora)}
    if not engine.weights_on_host:
        parts |= _weights(shape, training, engine, ranks)
    if not engine.optimizer_on_host:
        parts |= _optimizer(shape, training, engine, ranks)
    if engine.is_sharded and (ranks > 1 or engine.weights_on_host):
        parts["gathered_weights"] = _gathered(shape, training, engine)
    if engine.name == "zero3":
        parts["reduce_buckets"] = 4.0 * engine.bucket_elements
    return parts


def offloaded_memory(
    shape: DecoderShape, training: config.Training, engine: EngineSettings, ranks: int
) -> dict[str, float]:
    """Return the bytes that each rank keeps in host memory, whatever the batch.

    Notes
    -----
    With an offloaded optimizer its part of the gradients lies there too, in stage 3 of DeepSpeed twice: as it was
    reduced, and as it is stepped on. Below it stepped weights wait there for their way up.
    """
    parts: dict[str, float] = {}
    if engine.weights_on_host:
        parts |= _weights(shape, training, engine, ranks)
    if engine.optimizer_on_host:
        parts |= _optimizer(shape, training, engine, ranks)
        part = 4.0 * trained_parameters(shape, training.lora) / ranks
        parts["gradient_parts"] = parts.get("gradient_parts", 0.0) + part
        if engine.name in ("zero1", "zero2"):
            parts["stepped_weights"] = part
    return parts


def reduction_memory(
    shape: DecoderShape, training: config.Training, engine: EngineSettings, ranks: int
) -> float:
    """Return the bytes that DeepSpeed's one reduction takes on the GPU when the activations are gone.

    Below stage 3 buckets are made for it, and the rank's part of the gradients; stage 3 copies a bucket in the order
    of the ranks.
    """
    if not engine.is_deepspeed:
        return 0.0
    trained = trained_parameters(shape, training.lora)
    if engine.name == "zero3":
        return 4.0 * min(engine.bucket_elements, trained)
    part = 0.0 if engine.optimizer_on_host else 4.0 * trained / ranks
    return 4.0 * engine.bucket_elements * engine.buckets + part


def _weights(
    shape: DecoderShape, training: config.Training, engine: EngineSettings, ranks: int
) -> dict[str, float]:
    whole = 4.0 * all_parameters(shape, training.lora)
    return {"weights": whole / ranks if engine.is_sharded else whole}


def _optimizer(
    shape: DecoderShape, training: config.Training, engine: EngineSettings, ranks: int
) -> dict[str, float]:
    trained = trained_parameters(shape, training.lora)
    part = 1 if engine.name == "replicated" else ranks
    parts = {"optimizer": _moments(shape, training, trained) / part}
    if engine.is_deepspeed:
        parts["master_weights"] = 4.0 * trained / ranks
    if engine.name == "zero3":
        parts["gradient_parts"] = 4.0 * trained / ranks
    return parts


def _moments(shape: DecoderShape, training: config.Training, trained: int) -> float:
    rate = OPTIMIZER_BYTES[training.optimizer.kind]
    if training.optimizer.kind == "muon" and training.lora is None:
        return rate * shape.body_parameters + 8.0 * (trained - shape.body_parameters)
    return float(rate * trained)


def _gathered(shape: DecoderShape, training: config.Training, engine: EngineSettings) -> float:
    every = all_parameters(shape, training.lora)
    table = shape.vocabulary * shape.hidden
    two_layers = 2 * shape.layer_parameters
    if engine.name == "zero3":
        return 4.0 * min(every, max(engine.live_elements, two_layers, table))
    size = 2.0 if training.precision == "bf16" else 4.0
    return size * (min(every, two_layers + table) if engine.reshard else every)


@dataclass(frozen=True)
class KeptBytes:
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


#: Elements of attention weights and of their gradient that a layer makes at a time which runs as one function.
_FUSED_SCORES = 2 << 21


def kept_bytes(training: config.Training, *, fused: bool = False) -> KeptBytes:
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
    beside frozen layers is not in it (:func:`~.adapters.adapter_bytes`); compiled layers are taken to keep as much
    as trained ones.
    """
    half = training.precision == "bf16"
    if training.activation_checkpointing in (True, "offload"):
        return KeptBytes(0 if training.activation_checkpointing == "offload" else 4, 0, 0, 0)
    if fused:
        # Its input in float32, and what matrix products give: q, k, v, attention and its projection; gate and up.
        return KeptBytes(6, 4, 4, 4) if half else KeptBytes(8, 8, 8, 8)
    if training.activation_checkpointing == "selective":
        # The residual stream in float32, and outputs of matrix products: q, k, v, attention, o; gate, up, down.
        return KeptBytes(8, 4, 4, 4) if half else KeptBytes(12, 8, 8, 8)
    if training.compile and half:
        # These, both normalised inputs, rotated queries and keys, the activated gate and its product.
        return KeptBytes(12, 6, 6, 8)
    if training.lora is not None:
        # Without a gradient of its own no matrix needs its input, and no norm its normalised one.
        return KeptBytes(8, 8, 8, 6) if half else KeptBytes(8, 12, 12, 12)
    return KeptBytes(26, 12, 10, 8) if half else KeptBytes(24, 20, 16, 16)


@dataclass(frozen=True)
class RankLoad:
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
    kept = kept_bytes(training, fused=fused).bytes(shape) + 12.0 * shape.hidden
    if training.lora is None or training.activation_checkpointing in (True, "offload"):
        return kept
    selective = training.activation_checkpointing == "selective"
    wide = 2 if training.precision == "bf16" else 4
    return kept + adapter_bytes(shape, training.lora, wide=wide, selective=selective)


def batch_memory(
    shape: DecoderShape,
    training: config.Training,
    load: RankLoad,
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
    load : RankLoad
        What the rank does in a step.
    loss : config.InfoNCE
        The rows of a tile, and what they are contrasted with.
    cast : bool
        Whether autocast copies the matrices; not where the engine gathers them in bf16.
    fused : bool
        As :func:`kept_bytes` takes it.

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


def loss_tile(loss: config.InfoNCE, load: RankLoad) -> float:
    """Return the bytes of one tile of the loss: its similarities, and what masks and a learnt temperature add.

    Notes
    -----
    Similarities of each row with all queries or documents of each direction, in float32. Where texts of a batch repeat,
    three masks of the documents that are known to answer, a byte each, counted always; after that, all similarities
    once more for the gradient of a learnt temperature. A teacher's vectors are learnt afterwards, with the same rows:
    four float32 copies of their similarities with the documents.
    """
    columns = sum(
        load.documents if direction.endswith("_document") else load.queries for direction in loss.directions
    )
    again = 0.0 if loss.learn_temperature is None else 4.0 * columns
    row = 4.0 * columns + max(3.0 * load.documents, again)
    if loss.teacher_vectors is not None:
        row = max(row, 4 * 4.0 * load.documents)
    return min(loss.tile_rows, load.queries) * row


def offloaded_activations(shape: DecoderShape, training: config.Training, load: RankLoad) -> float:
    """Return the bytes of layers' inputs that a rank keeps in host memory: float32, one of each layer."""
    if training.activation_checkpointing != "offload":
        return 0.0
    return load.stored * KeptBytes(4, 0, 0, 0).bytes(shape)
