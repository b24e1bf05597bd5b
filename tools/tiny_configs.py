"""Small configurations of every class in Transformers' causal mapping, shrunk by the names of their fields."""

from pathlib import Path
from typing import Any

import yaml
from transformers import CONFIG_MAPPING, PretrainedConfig

VOCABULARY = 99

_SMALL = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "n_embed", "word_embed_proj_dim", "embedding_size",
         "input_embedding_size", "output_embedding_size", "attention_hidden_size"), 32,
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size", "dff",
         "d_ff", "dim_ff", "feed_forward_size"), 48,
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
         "shared_intermediate_size", "expert_ffn_hidden_size", "shared_experts_intermediate_size"), 24,
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_attention_heads", "n_head", "n_heads",
         "num_heads", "decoder_attention_heads", "encoder_attention_heads", "num_experts", "num_local_experts",
         "n_routed_experts", "moe_num_experts", "linear_num_value_heads", "linear_num_heads"), 4,
    ),
    **dict.fromkeys(
        ("decoder_layers", "encoder_layers", "num_key_value_heads", "num_experts_per_tok", "top_k", "moe_top_k",
         "moe_topk", "moe_k", "num_experts_per_token", "linear_num_key_heads", "index_n_heads", "n_mamba_heads"), 2,
    ),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_target_positions",
         "max_source_positions", "model_max_length"), 512,
    ),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "decoder_start_token_id", "bos_token_id"), 1),
    **dict.fromkeys(("head_dim", "linear_head_dim", "linear_key_head_dim", "linear_value_head_dim", "dim_head",
                     "index_head_dim", "attention_head_size"), 8),
    **dict.fromkeys(("sliding_window", "keep_window_size", "attention_chunk_size", "attention_window_size"), 24),
    "pad_token_id": 0, "eos_token_id": 2, "is_decoder": True, "rotary_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 24,
    "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10, "index_topk": 16, "mamba_n_heads": 8,
    "mamba_d_head": 8, "mamba_d_state": 16, "mamba_chunk_size": 16, "chunk_size": 16, "hidden_size_per_layer_input": 8,
}  # fmt: skip
"""Small values of fields, by their name."""

_OVERRIDES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
"""What a class needs besides."""


def tiny_config(model_type: str) -> PretrainedConfig:
    """Return a configuration of a class with a few thousand parameters."""
    return _shrunk(CONFIG_MAPPING[model_type], _OVERRIDES.get(model_type))


def _shrunk(kind: type[PretrainedConfig], overrides: dict[str, Any] | None = None) -> PretrainedConfig:
    base = kind()
    fields = base.to_dict()
    names = getattr(kind, "attribute_map", {})
    small: dict[str, Any] = {
        names.get(name, name): value for name, value in _SMALL.items() if name in fields or name in names
    }
    for name, value in fields.items():
        part = getattr(base, name) if isinstance(value, dict) and name != "per_layer_config" else None
        if isinstance(part, PretrainedConfig):
            small[name] = _shrunk(type(part), _OVERRIDES.get(part.model_type)).to_dict()
    return kind(**(small | (overrides or {})))
