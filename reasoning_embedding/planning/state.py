"""Memory that does not depend on the batch, on paper: weights, gradients, optimizer, and an engine's buffers."""

from __future__ import annotations

from reasoning_embedding import config

from .adapters import adapter_parameters
from .engines import Holding
from .flops import DecoderShape

#: Share of the free memory that activations are planned with; the rest is for fragments, the loss and surprises.
PLANNED_SHARE = 0.9
#: Bytes of optimizer state a trained parameter (Muon: of the body; its embeddings take AdamW's).
OPTIMIZER_BYTES = {"adamw": 8, "adamw8bit": 2, "muon": 4}


def trained_parameters(shape: DecoderShape, lora: config.Lora | None) -> int:
    """Return the parameters that have a gradient: all, or those of the adapters."""
    return shape.parameters if lora is None else adapter_parameters(shape, lora)


def all_parameters(shape: DecoderShape, lora: config.Lora | None) -> int:
    """Return the parameters of backbone and adapters."""
    return shape.parameters + (0 if lora is None else adapter_parameters(shape, lora))


def fixed_memory(
    shape: DecoderShape, training: config.Training, holding: Holding, ranks: int
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
    if not holding.weights_on_host:
        parts |= _weights(shape, training, holding, ranks)
    if not holding.optimizer_on_host:
        parts |= _optimizer(shape, training, holding, ranks)
    if holding.sharded and (ranks > 1 or holding.weights_on_host):
        parts["gathered_weights"] = _gathered(shape, training, holding)
    if holding.engine == "zero3":
        parts["reduce_buckets"] = 4.0 * holding.bucket
    return parts


def host_memory(
    shape: DecoderShape, training: config.Training, holding: Holding, ranks: int
) -> dict[str, float]:
    """Return the bytes that each rank keeps in host memory, whatever the batch.

    Notes
    -----
    With an offloaded optimizer its part of the gradients lies there too, in stage 3 of DeepSpeed twice: as it was
    reduced, and as it is stepped on. Below it stepped weights wait there for their way up.
    """
    parts: dict[str, float] = {}
    if holding.weights_on_host:
        parts |= _weights(shape, training, holding, ranks)
    if holding.optimizer_on_host:
        parts |= _optimizer(shape, training, holding, ranks)
        part = 4.0 * trained_parameters(shape, training.lora) / ranks
        parts["gradient_parts"] = parts.get("gradient_parts", 0.0) + part
        if holding.engine in ("zero1", "zero2"):
            parts["stepped_weights"] = part
    return parts


def reduction_memory(shape: DecoderShape, training: config.Training, holding: Holding, ranks: int) -> float:
    """Return the bytes that DeepSpeed's one reduction takes on the GPU when the activations are gone.

    Below stage 3 buckets are made for it, and the rank's part of the gradients; stage 3 copies a bucket in the order
    of the ranks.
    """
    if not holding.deepspeed:
        return 0.0
    trained = trained_parameters(shape, training.lora)
    if holding.engine == "zero3":
        return 4.0 * min(holding.bucket, trained)
    part = 0.0 if holding.optimizer_on_host else 4.0 * trained / ranks
    return 4.0 * holding.bucket * holding.buckets + part


def _weights(
    shape: DecoderShape, training: config.Training, holding: Holding, ranks: int
) -> dict[str, float]:
    whole = 4.0 * all_parameters(shape, training.lora)
    return {"weights": whole / ranks if holding.sharded else whole}


def _optimizer(
    shape: DecoderShape, training: config.Training, holding: Holding, ranks: int
) -> dict[str, float]:
    trained = trained_parameters(shape, training.lora)
    part = 1 if holding.engine == "replicated" else ranks
    parts = {"optimizer": _moments(shape, training, trained) / part}
    if holding.deepspeed:
        parts["master_weights"] = 4.0 * trained / ranks
    if holding.engine == "zero3":
        parts["gradient_parts"] = 4.0 * trained / ranks
    return parts


def _moments(shape: DecoderShape, training: config.Training, trained: int) -> float:
    rate = OPTIMIZER_BYTES[training.optimizer.kind]
    if training.optimizer.kind == "muon" and training.lora is None:
        return rate * shape.body_parameters + 8.0 * (trained - shape.body_parameters)
    return float(rate * trained)


def _gathered(shape: DecoderShape, training: config.Training, holding: Holding) -> float:
    every = all_parameters(shape, training.lora)
    table = shape.vocabulary * shape.hidden
    two_layers = 2 * shape.layer_parameters
    if holding.engine == "zero3":
        return 4.0 * min(every, max(holding.live, two_layers, table))
    size = 2.0 if training.precision == "bf16" else 4.0
    return size * (min(every, two_layers + table) if holding.reshard else every)
