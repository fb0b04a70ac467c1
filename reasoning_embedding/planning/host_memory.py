"""What waits in host memory on paper: its bytes, its way to the GPU and back, and the optimizer's step beside it."""

from __future__ import annotations

from reasoning_embedding import config

from .engines import Holding
from .flops import DecoderShape, Device
from .memory import Kept, Load
from .state import all_parameters, trained_parameters

#: Share of a link's peak that pinned copies reach: 25 to 26 of the 32 GB/s of 16 lanes of PCIe 4.0.
_COPIED = 0.8
#: Host memory's bandwidth for each GPU, bytes a second: 16 channels of DDR4-3200 (410 GB/s) for eight, as in a DGX A100.
_HOST_MEMORY = 50e9
#: AdamW in float32 reads weight, gradient and two moments, and writes all but the gradient.
_STEP_BYTES = 7 * 4


def host_activations(shape: DecoderShape, training: config.Training, load: Load) -> float:
    """Return the bytes of layers' inputs that a rank keeps in host memory: float32, one of each layer."""
    if training.activation_checkpointing != "offload":
        return 0.0
    return load.stored * Kept(4, 0, 0, 0).bytes(shape)


def copied_bytes(
    shape: DecoderShape, training: config.Training, holding: Holding, ranks: int, load: Load, *, passes: float
) -> dict[str, float]:
    """Return the bytes that each GPU exchanges with its host in a step, by purpose.

    Parameters
    ----------
    shape, training
        The encoder and its recipe.
    holding : Holding
        Where the engine keeps what.
    ranks : int
        Number of ranks.
    load : Load
        What the rank does.
    passes : float
        Forwards and backwards that fetch the weights.

    Notes
    -----
    Layers' inputs go down and come up once. Offloaded weights come up for every pass. Of an offloaded optimizer the
    rank's part of the gradients goes down, and the stepped weights come up, unless they wait in host memory too.
    DeepSpeed's stage 3 sends its part of the gradients down, takes it up for their norm, and sends it down again.
    """
    part = 4.0 * trained_parameters(shape, training.lora) / ranks
    found = {"activations": 2 * host_activations(shape, training, load)}
    if holding.weights_on_host:
        found["weights"] = 4.0 * all_parameters(shape, training.lora) / ranks * passes
    if holding.optimizer_on_host:
        found["gradients"] = part * (3 if holding.engine == "zero3" else 1)
        found["stepped_weights"] = 0.0 if holding.weights_on_host else part
    return found


def copy_rate(device: Device) -> float:
    """Return the bytes a second that a GPU copies from or to its host."""
    return _COPIED * device.host * 1e9


def host_step_seconds(shape: DecoderShape, training: config.Training, holding: Holding, ranks: int) -> float:
    """Return the seconds that the host takes for the optimizer's step, at the speed of its memory.

    A lower bound: hosts differ, and few steps reach their memory's peak.
    """
    if not holding.optimizer_on_host:
        return 0.0
    return _STEP_BYTES * trained_parameters(shape, training.lora) / ranks / _HOST_MEMORY
