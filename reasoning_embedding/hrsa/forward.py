"""The states of every layer of any model: by the packed forward of a decoder, else by the model's own padded one."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch

from reasoning_embedding.backbones import Pack, decoder_layers, is_causal, is_decoder
from reasoning_embedding.backbones.layers import PACKED
from reasoning_embedding.errors import ContractError

#: Label of the states that a model's vector is made of.
FINAL = "final norm"
_PRE_NORM = " (pre-norm)"


def layer_labels(model: Any) -> list[str]:
    """Return the labels of what :func:`states_of_pack` gives, of a model with a norm after its last layer."""
    depth = len(decoder_layers(model))
    return ["embedding", *(f"layer {place}" for place in range(1, depth)), f"layer {depth}{_PRE_NORM}", FINAL]


def without_final_norm(labels: list[str]) -> list[str]:
    """Return the labels of a model without that norm, such as BERT: its last layer and its final states are one."""
    return [label.removesuffix(_PRE_NORM) for label in labels]


def attends_causally(model: Any) -> bool:
    """Whether a token sees only what stands before it; an encoder's sees all."""
    return is_decoder(model.config) and is_causal(model.config)


@contextlib.contextmanager
def hooked(model: Any) -> Generator[list[torch.Tensor]]:
    """Record the input of the first layer and the output of each, in order, of the next forward.

    The list is cleared by whoever reads it. The hooks go when the block ends, by an error too.
    """
    recorded: list[torch.Tensor] = []
    layers = decoder_layers(model)

    def before(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        recorded.append(inputs[0] if inputs else named["hidden_states"])

    def after(module: Any, inputs: Any, output: Any) -> None:
        recorded.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def states_of_pack(model: Any, pack: Pack, recorded: list[torch.Tensor]) -> list[torch.Tensor]:
    """Run a model over the texts of a pack.

    Parameters
    ----------
    model : PreTrainedModel
        With packed attention (:func:`reasoning_embedding.backbones.load_decoder`), or as transformers loads it: then the
        texts are padded on the right, and the padding's states are dropped.
    pack : Pack
        n texts of T tokens in all.
    recorded : list of Tensor
        What :func:`hooked` yields for this model.

    Returns
    -------
    list of Tensor
        (T, D) float32 states: after the embedding, after each layer, and the final ones.

    Raises
    ------
    ContractError
        If the model runs its layers otherwise than once each, over all tokens.
    """
    recorded.clear()
    if model.config._attn_implementation == PACKED:
        final = model(**pack.model_inputs()).last_hidden_state
        return [state[0].float() for state in (*recorded, final)]
    lengths = pack.cu_seqlens.diff().long()
    mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    # Models that count positions by what is no padding know it by this id.
    ids = torch.full(mask.shape, getattr(model.config, "pad_token_id", None) or 0, device=mask.device)
    ids[mask] = pack.input_ids
    final = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    states = [*recorded, final]
    if len(states) != len(decoder_layers(model)) + 2 or any(each.shape != final.shape for each in states):
        raise ContractError(
            f"{type(model).__name__} does not run a list of layers once each over all tokens, so they cannot be told apart",
            where=str(model.config._name_or_path),
            todo="compare models whose layers stand in one list (BERT, MPNet, ModernBERT, decoders, ...)",
        )
    return [state[mask].float() for state in states]
