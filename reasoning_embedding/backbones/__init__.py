"""A decoder checkpoint becomes an embedder."""

from .compilation import compile_layers
from .contracts import (
    AttentionCheck,
    InputContract,
    check_attention,
    check_same_chat_templates,
    check_same_inputs,
    input_contract,
    packed_attention_difference,
)
from .cpu import fuse_layers
from .dropout import text_keys, use_text_dropout
from .embedder import Embedder, choose_prompt
from .end_token import add_end_token, ends_texts
from .heads import activation_name, load_heads, make_heads
from .inherited import RunReadout, build_embedder, run_readout, run_tokenizer
from .layers import decoder_layers, is_causal
from .load import build_backbone, load_config, load_decoder, load_tokenizer, untrained_decoder
from .lora import add_lora, head_state_dicts, merged_state_dict, stock_model
from .packs import Pack, make_pack, make_packs, packs_for, streams_for
from .pooling import pool
from .precision import SOFTWARE_BFLOAT16, compute_dtype, multiplies_bfloat16
from .readout import (
    LIBRARY_POOLING,
    Head,
    Readout,
    SavedReadout,
    is_decoder,
    read_readout,
    refuse_contradiction,
    require_decoder,
)
