"""A decoder checkpoint becomes a bidirectional encoder."""

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
from .embedder import Embedder
from .layers import decoder_layers
from .load import build_backbone, load_config, load_decoder, load_tokenizer
from .lora import add_lora, merged_state_dict, stock_model
from .packs import Pack, make_pack, make_packs, packs_for, streams_for
from .pooling import mean_pool
from .precision import SOFTWARE_BFLOAT16, compute_dtype, multiplies_bfloat16
from .readout import require_decoder, require_packed_readout
