"""A whole embedder from the weights of a sharded one."""

from __future__ import annotations

import copy

from reasoning_embedding.backbones import Embedder, merged_state_dict, stock_model

from .base import Engine


def whole_copy(engine: Engine) -> Embedder:
    """Build the stock module anew on every rank, adapters merged, on the rank's device.

    Each rank then holds the whole weights once more, for as long as the copy lives.
    """
    from accelerate import init_empty_weights

    stock = stock_model(engine.embedder)
    weights = merged_state_dict(engine.embedder, engine.weights(everywhere=True))
    settings = copy.deepcopy(stock.config)
    with init_empty_weights(include_buffers=False):
        model = type(stock)(settings)
    model.load_state_dict(weights, assign=True)
    model.set_attn_implementation(stock.config._attn_implementation)
    embedder = Embedder(model, engine.embedder.tokenizer, engine.embedder.pooling, engine.embedder.prompts)
    return embedder.to(engine.world.device)
