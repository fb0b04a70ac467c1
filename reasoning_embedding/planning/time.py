"""Time of a training step on paper: what a GPU computes, sends and exchanges with its host, at published peaks."""

from __future__ import annotations

from reasoning_embedding import config
from reasoning_embedding.config import EngineSettings

from .adapters import adapter_parameters
from .devices import Device
from .memory import RankLoad, all_parameters, offloaded_activations, trained_parameters
from .shapes import DecoderShape, training_flops

#: Shares of the published peaks that an H200 was measured to give: bf16 products (790 of 989 TFLOP/s), memory
#: (4.3 of 4.8 TB/s); variable-length attention forward and backward (166 of 989); NCCL on NVLink (375 of 450).
_PRODUCTS, _MEMORY, _ATTENTION, _LINK = 0.8, 0.9, 0.168, 0.83
#: Products of matrices narrower than this many columns lose half of their rate.
_NARROW = 171
#: A whole step reaches this share of the roofline (against torchtitan's published H100 figures).
DERATING = 0.8
#: Between nodes: 400 Gb/s InfiniBand a GPU, in bytes a second.
_NETWORK = 50e9
NODE = 8
#: Share of a link's peak that pinned copies reach: 25 to 26 of the 32 GB/s of 16 lanes of PCIe 4.0.
_COPIED = 0.8
#: Host memory's bandwidth for each GPU, bytes a second: 16 channels of DDR4-3200 (410 GB/s) for eight, as in a DGX A100.
_HOST_MEMORY = 50e9
#: AdamW in float32 reads weight, gradient and two moments, and writes all but the gradient.
_STEP_BYTES = 7 * 4
#: Products in float32, without tensor cores, to the bf16 peak: 67 of 989 TFLOP/s on an H100 or H200, 19.5 of 312 on an
#: A100. torch leaves TF32 off.
_FLOAT32 = 1 / 15


def compute_seconds(
    shape: DecoderShape, training: config.Training, tokens: float, squares: float, device: Device
) -> dict[str, float]:
    """Return the seconds of forward and backward of some texts on one GPU, by kind of work, at the roofline.

    Parameters
    ----------
    shape, training
        The encoder and its recipe: precision, compilation, and adapters, whose frozen matrices need no gradient of
        their own.
    tokens, squares : float
        Tokens of the texts, and the sum of their squared lengths.
    device : Device
        Its peaks.

    Notes
    -----
    Products reach w / (w + 171) of the measured rate at width w. Fused elementwise work moves, a token and
    layer, 42 bytes of each element of the residual stream (two norms and residuals, forward and backward), 10
    of queries and keys (norm, rotation), 25 of the MLP (gate, activation, recomputed once); eager kernels
    move about 120 more of each. The constants reproduce the model's figures for Qwen3 at 0.6B to 8B on an
    H200 within 6 %; eager ones within 40 %. An adapter's products are as narrow as its rank; what its dropout,
    casts and additions move is not counted.
    """
    lora, wide = training.lora, shape.widths
    heads = wide["query"] + wide["key_value"]
    linear = training_flops(shape, tokens, 0.0, full=lora is None)
    attention = training_flops(shape, 0.0, squares)
    bandwidth = _MEMORY * device.bandwidth * 1e12
    moved = 42 * shape.hidden + 10 * heads + 25 * shape.intermediate
    eager = 0 if training.compile else 120 * (shape.hidden + heads + shape.intermediate)
    peak = device.tflops * 1e12
    if training.precision == "fp32":
        peak, moved, eager = peak * _FLOAT32, 2 * moved, 2 * eager
    return {
        "products": linear / (_PRODUCTS * peak * _reached(shape.hidden)),
        "adapters": 0.0
        if lora is None
        else 6 * adapter_parameters(shape, lora) * tokens / (_PRODUCTS * peak * _reached(lora.rank)),
        "attention": attention / (_ATTENTION * peak),
        "elementwise": tokens * shape.layers * moved / bandwidth,
        "eager_kernels": tokens * shape.layers * eager / bandwidth,
    }


def _reached(width: int) -> float:
    """Share of the rate of products that matrices of this width reach."""
    return width / (width + _NARROW)


def forward_seconds(compute: dict[str, float], *, frozen: bool) -> float:
    """Return how much of :func:`compute_seconds` is the forward pass.

    A third of all work, as each product is made for the output, for its input's gradient and for its matrix's; half of
    the products with frozen matrices, which need no third.
    """
    thirds = sum(seconds for name, seconds in compute.items() if name != "products")
    return compute["products"] / (2 if frozen else 3) + thirds / 3


def loss_seconds(load: RankLoad, dimension: int, gpus: int, device: Device) -> float:
    """Return the seconds of the loss: three products of this rank's queries with all documents, in float32."""
    rows = load.queries / gpus
    return 3 * 2 * rows * load.documents * dimension / (_FLOAT32 * device.tflops * 1e12)


def anchor_seconds(
    shape: DecoderShape, training: config.Training, load: RankLoad, squares: float, device: Device
) -> float:
    """Return the seconds that the frozen backbone takes, which an anchored loss compares with.

    A forward of its stock layers, then linear CKA in float32 on one rank, for which the others wait: three products of
    embeddings with embeddings (texts x D x D), and three more for the gradient.
    """
    stock = training.model_copy(update={"compile": False, "lora": None})
    forward = compute_seconds(shape, stock, load.tokens, squares, device)
    products = 6 * 2 * load.texts * shape.hidden**2
    return forward_seconds(forward, frozen=False) + products / (_FLOAT32 * device.tflops * 1e12)


def link_rate(device: Device, gpus: int) -> float:
    """Return the bytes a second that each of `gpus` GPUs sends: NVLink in a node, the network beyond."""
    inside = device.link * 1e9
    return _LINK * (inside if gpus <= NODE else min(inside, _NETWORK))


def communication_bytes(
    shape: DecoderShape,
    training: config.Training,
    engine: EngineSettings,
    ranks: int,
    load: RankLoad,
    *,
    passes: float,
    anchored: bool = False,
) -> dict[str, float]:
    """Return the bytes that each GPU sends in a step, by purpose.

    Parameters
    ----------
    shape, training
        The encoder and its recipe.
    engine : EngineSettings
        How the ranks hold the model.
    ranks : int
        Number of ranks.
    load : RankLoad
        The batch.
    passes : float
        Forwards and backwards in which sharded layers are gathered: two of each pack, three of one embedded
        twice.
    anchored : bool
        Whether embeddings of the frozen backbone are gathered, too.

    Notes
    -----
    A ring sends (n - 1) / n of the whole for a gather or a reduce-scatter, and twice that for an all-reduce
    (Patarasuk and Yuan 2009). Embeddings are gathered and their float32 gradients all-reduced. FSDP2 gathers
    parameters in what layers compute in.
    """
    ring = (ranks - 1) / ranks
    rows = 4.0 * load.texts * shape.hidden * ring
    gradients = 4.0 * trained_parameters(shape, training.lora) * ring
    sent = {"embeddings": (2 if anchored else 1) * rows, "embedding_gradients": 2 * rows}
    sent["gradients"] = 2 * gradients if engine.name in ("replicated", "zero1") else gradients
    if engine.is_sharded:
        size = 2 if engine.name == "fsdp2" and training.precision == "bf16" else 4
        sent["parameters"] = size * shape.parameters * ring * passes
    elif engine.is_deepspeed:
        sent["parameters"] = gradients
    return sent


def copied_bytes(
    shape: DecoderShape,
    training: config.Training,
    engine: EngineSettings,
    ranks: int,
    load: RankLoad,
    *,
    passes: float,
) -> dict[str, float]:
    """Return the bytes that each GPU exchanges with its host in a step, by purpose.

    Parameters
    ----------
    shape, training
        The encoder and its recipe.
    engine : EngineSettings
        Where the engine keeps what.
    ranks : int
        Number of ranks.
    load : RankLoad
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
    found = {"activations": 2 * offloaded_activations(shape, training, load)}
    if engine.weights_on_host:
        found["weights"] = 4.0 * all_parameters(shape, training.lora) / ranks * passes
    if engine.optimizer_on_host:
        found["gradients"] = part * (3 if engine.name == "zero3" else 1)
        found["stepped_weights"] = 0.0 if engine.weights_on_host else part
    return found


def copy_rate(device: Device) -> float:
    """Return the bytes a second that a GPU copies from or to its host."""
    return _COPIED * device.host * 1e9


def host_step_seconds(
    shape: DecoderShape, training: config.Training, engine: EngineSettings, ranks: int
) -> float:
    """Return the seconds that the host takes for the optimizer's step, at the speed of its memory.

    A lower bound: hosts differ, and few steps reach their memory's peak.
    """
    if not engine.optimizer_on_host:
        return 0.0
    return _STEP_BYTES * trained_parameters(shape, training.lora) / ranks / _HOST_MEMORY
