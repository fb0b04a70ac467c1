"""Two contracts a backbone must keep before a run starts and after an export.

Attention: every layer sees both directions (of a causal readout: none sees a later token), texts of a pack do not see
each other, padding changes nothing, and a model that attends the other way fails the same test. Input: all backbones of
an experiment see the same ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reasoning_embedding.errors import ContractError

from . import attention
from .layers import decoder_layers
from .packs import Pack, make_pack

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BIDIRECTIONAL_LAYERS = {"full_attention", "sliding_attention"}
#: What a configuration says of attention's direction.
_DIRECTIONS = ("is_causal", "use_bidirectional_attention")
_LENGTHS = (9, 6, 6, 11)
_ADVICE = (
    "choose a decoder whose attention honours config.is_causal (qwen2, qwen3, llama, mistral, olmo2, ...)"
)


@dataclass(frozen=True)
class AttentionCheck:
    """What the attention contract measured; differences are relative to the largest state.

    Attributes
    ----------
    least_reach : float
        Smallest movement of a token's state, over layers, when the NEXT token's state changes (> 0); of a causal model,
        when the token BEFORE it changes (> 0: the test would see a movement).
    causal_reach : float
        Largest movement, over layers, of a token of the causal twin, or of the causal model itself, when the next
        token's state changes (must be 0).
    leak : float
        Largest movement of a text when another text of its pack changes (must be 0).
    padding : float
        Largest difference between a packed text and the same text in a padded batch (must be 0).
    """

    least_reach: float
    causal_reach: float
    leak: float
    padding: float


def check_attention(
    model: PreTrainedModel, *, where: str, causal: bool = False, tolerance: float = 1e-4
) -> AttentionCheck:
    """Refuse a model that does not attend as its readout says, leaks between texts, or minds padding.

    Parameters
    ----------
    model : PreTrainedModel
        A decoder under ``packed`` attention.
    where : str
        Its name, for the error.
    causal : bool
        Whether it is to be causal; else every layer must see both ways.
    tolerance : float
        Largest relative difference that counts as none.

    Raises
    ------
    ContractError
        Naming the model and the layer or the property that fails.
    """
    if not causal:
        _refuse_other_layers(model, where)
    rng = np.random.default_rng(0)
    vocabulary = int(model.get_input_embeddings().num_embeddings)  # ty: ignore[invalid-argument-type]
    texts = [rng.integers(0, vocabulary, length) for length in _LENGTHS]
    pack = _pack(texts, model.device)
    with _evaluation(model):
        try:
            ahead = _reach_per_layer(model, pack)
        except ContractError as error:  # raised by packed attention, which knows the layer but not the model
            raise ContractError(f"{error.where}: {error.what}", where=where, todo=_ADVICE) from error
        if causal:
            reach = _reach_per_layer(model, pack, backwards=True)
            sees = [str(index) for index, value in enumerate(ahead) if value > tolerance * 1e-2]
            if sees:
                _fail(f"attention is not causal in layer {', '.join(sees)}", where)
        else:
            reach = ahead
            with _causal(model):
                ahead = _reach_per_layer(model, pack)
        blind = [str(index) for index, value in enumerate(reach) if value <= tolerance * 1e-2]
        if blind:
            what = "sees nothing of the token before" if causal else "attention is not bidirectional"
            _fail(f"{what} in layer {', '.join(blind)}", where)
        packed = _states(model, pack)
        changed = [texts[0], (texts[1] + 1) % vocabulary, *texts[2:]]
        others = _states(model, _pack(changed, model.device))
        own = slice(_LENGTHS[0], _LENGTHS[0] + _LENGTHS[1])
        leak = _difference(np.delete(packed, np.r_[own], axis=0), np.delete(others, np.r_[own], axis=0))
        padding = _difference(packed, _padded_states(model, texts))
    result = AttentionCheck(min(reach), max(ahead), leak, padding)
    if result.causal_reach > tolerance * 1e-2:
        _fail("is_causal has no effect: the causal twin sees later tokens too", where)
    if leak > tolerance:
        _fail(f"texts of one pack see each other (difference {leak:.2g})", where)
    if padding > tolerance:
        _fail(f"padding changes the states of a text (difference {padding:.2g})", where)
    return result


def packed_attention_difference(device: str) -> float:
    """Return how far packed attention of two texts is from that of each alone, on a device: 0 but for rounding."""
    layer: Any = SimpleNamespace(config=SimpleNamespace(is_causal=False))
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    heads = torch.randn(3, 1, 2, 8, 16, generator=generator).to(device, dtype)
    ends = (0, 3, 8)
    boundaries = torch.tensor(ends, dtype=torch.int32, device=device)
    packed, _ = attention.packed_attention(layer, *heads, None, cu_seq_lens_q=boundaries, max_length_q=5)
    alone = [
        torch.nn.functional.scaled_dot_product_attention(*heads[..., start:stop, :])
        for start, stop in itertools.pairwise(ends)
    ]
    return float((packed - torch.cat(alone, dim=2).transpose(1, 2)).abs().max())


def _fail(what: str, where: str) -> None:
    raise ContractError(f"the attention contract is broken: {what}", where=where, todo=_ADVICE)


def _refuse_other_layers(model: PreTrainedModel, where: str) -> None:
    kinds = set(getattr(model.config, "layer_types", None) or _BIDIRECTIONAL_LAYERS)
    if other := sorted(kinds - _BIDIRECTIONAL_LAYERS):
        _fail(f"{', '.join(other)} layers stay causal whatever the config says", where)


def _pack(texts: list[np.ndarray], device: torch.device) -> Pack:
    return make_pack(texts, [0] * len(texts)).to(device)


@contextlib.contextmanager
def _evaluation(model: PreTrainedModel) -> Generator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


@contextlib.contextmanager
def _causal(model: PreTrainedModel) -> Generator[None]:
    before = {name: getattr(model.config, name, None) for name in _DIRECTIONS if hasattr(model.config, name)}
    model.config.is_causal = True
    if "use_bidirectional_attention" in before:
        model.config.use_bidirectional_attention = False
    try:
        yield
    finally:
        if "is_causal" not in before:
            del model.config.is_causal
        for name, value in before.items():
            setattr(model.config, name, value)


def _states(model: PreTrainedModel, pack: Pack) -> np.ndarray:
    return model(**pack.model_inputs()).last_hidden_state[0].float().cpu().numpy()


def _padded_states(model: PreTrainedModel, texts: list[np.ndarray]) -> np.ndarray:
    width = max(map(len, texts))
    ids = torch.zeros(len(texts), width, dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        states = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    finally:
        model.set_attn_implementation(before)
    return states[mask.bool()].float().cpu().numpy()


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))


def _reach_per_layer(model: PreTrainedModel, pack: Pack, *, backwards: bool = False) -> list[float]:
    """Movement of the last but one token of the first text when its last token's state changes, by layer.

    `backwards`: of the last one when the last but one changes.

    Each layer is called a second time, in place, with that one state replaced: a stack can look
    bidirectional as a whole while some of its layers are not.
    """
    last = int(pack.cu_seqlens[1]) - 1
    moved, watched = (last - 1, last) if backwards else (last, last - 1)
    reach: list[float] = []

    def probe(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        changed = hidden.clone()
        changed[0, moved] = changed[0, moved].flip(0) * 2 + changed.std()
        again = module.forward(
            changed, *args[1:], **{k: v for k, v in kwargs.items() if k != "hidden_states"}
        )
        before, after = _tensor(output)[0, watched], _tensor(again)[0, watched]
        reach.append(float((before - after).abs().max() / before.abs().max().clamp_min(1e-30)))

    handles = [layer.register_forward_hook(probe, with_kwargs=True) for layer in decoder_layers(model)]
    try:
        _states(model, pack)
    finally:
        for handle in handles:
            handle.remove()
    return reach


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


#: Texts whose ids reveal normalisation, spacing, digits, scripts, code and special tokens.
PROBE_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  Leading spaces,\ttabs and\n\nnewlines  ",
    "3.14159 + 2,718 = 1e-5; 0x1F; 2026-01-31",
    "def f(x):\n    return x ** 2  # square",
    "Ünïcödé, 中文字符, العربية, русский, 😀",
    "Instruct: Given a question, retrieve passages\nQuery: what is attention?",
    "<|endoftext|> <s> </s> [CLS]",
)


@dataclass(frozen=True)
class InputContract:
    """How a tokenizer turns text into ids; equal contracts mean equal inputs.

    Attributes
    ----------
    token_hash : str
        SHA-256 over the ids of :data:`PROBE_TEXTS`, alone and after each prompt.
    vocabulary : int
        Number of tokens.
    begins_with, ends_with : int or None
        Special token put around a text, if any.
    padding_side : str
        Side sentence-transformers pads on.
    """

    token_hash: str
    vocabulary: int
    begins_with: int | None
    ends_with: int | None
    padding_side: str


def input_contract(tokenizer: PreTrainedTokenizerBase, prompts: Iterable[str] = ()) -> InputContract:
    """Measure a tokenizer's contract on plain text (a chat template plays no part).

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Ending texts as its embedder wants.
    prompts : iterable of str
        What the embedder puts before texts.
    """
    ids = [tokenizer(prompt + text)["input_ids"] for prompt in ("", *prompts) for text in PROBE_TEXTS]
    bare = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROBE_TEXTS]
    extra = len(ids[0]) - len(bare[0])
    begins = ids[0][0] if extra and ids[0][0] != bare[0][0] else None
    ends = ids[0][-1] if extra and ids[0][-1] != bare[0][-1] else None
    return InputContract(
        hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        len(tokenizer),
        begins,
        ends,
        tokenizer.padding_side,
    )


def check_same_inputs(contracts: Mapping[str, InputContract], where: str = "backbones") -> None:
    """Refuse backbones of one experiment that would see different ids for the same text.

    Parameters
    ----------
    contracts : mapping
        Of each backbone, under its name; all with one readout.
    where : str
        What the error is about.

    Raises
    ------
    ContractError
        Naming the two backbones and what differs.
    """
    names = list(contracts)
    for name in names[1:]:
        first, other = asdict(contracts[names[0]]), asdict(contracts[name])
        # Added tokens that plain text never meets (chat markers) change the count, not the inputs.
        differs = [key for key in first if key != "vocabulary" and first[key] != other[key]]
        if differs:
            raise ContractError(
                f"the input contract is broken: {names[0]!r} and {name!r} differ in {', '.join(differs)}",
                where=where,
                todo="compare backbones that share one tokenizer and its BOS/EOS/padding policy",
            )


def check_same_chat_templates(templates: Mapping[str, Any]) -> None:
    """Refuse backbones of one experiment whose tokenizers would write a conversation differently.

    Parameters
    ----------
    templates : mapping of str to str, dict or None
        ``tokenizer.chat_template`` of each backbone.

    Raises
    ------
    ContractError
        Naming the two backbones.

    Notes
    -----
    Training and export pin plain text, so a template reaches no text of ours; generation, and libraries that wrap
    texts in it, would still treat the siblings differently.
    """
    names = list(templates)
    for name in names[1:]:
        if templates[name] != templates[names[0]]:
            without = [one for one in (names[0], name) if not templates[one]]
            what = f"; {without[0]!r} has none" if without else ""
            raise ContractError(
                f"the input contract is broken: {names[0]!r} and {name!r} have different chat templates{what}",
                where="backbones",
                todo="give both one tokenizer: stages of kind given, the second with tokenizer_of the first",
            )
