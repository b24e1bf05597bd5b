"""Small configurations of every class in Transformers' causal mapping, shrunk by the names of their fields."""

from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

VOCABULARY = 99
_KV = ("linear_attention", "full_attention")
_DENSE_FIRST = ("dense", "sparse", "sparse", "sparse")

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

_MLA = {"head_dim": 8, "num_key_value_heads": 4}
_OVERRIDES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu", "longcat_flash", "deepseek_v32",
         "glm_moe_dsa", "axk2", "mistral4"), _MLA,
    ),
    "bailing_hybrid": _MLA | {"layer_types": [*_KV, *_KV], "mlp_layer_types": list(_DENSE_FIRST), "num_nextn_predict_layers": 0},
    "kimi_linear": _MLA | {"layer_types": [*_KV, *_KV], "mlp_layer_types": list(_DENSE_FIRST)},
    "bamba": {"attn_layer_indices": [1, 3]},
    "dots1": {"n_shared_experts": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_dense_layers": 1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 16},
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]], "window_size": 24},
    "granitemoehybrid": {"layer_types": [*_KV, *_KV], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16},
    "zamba": {"attention_head_dim": 16, "attention_hidden_size": 64, "mamba_dt_rank": 4, "num_key_value_heads": 4,
              "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]},
    "zamba2": {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4, "mamba_headdim": 16, "n_mamba_heads": 4,
               "mamba_d_state": 16, "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid_sliding", "hybrid", "hybrid_sliding"],
             "router_hidden_size": 16},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "pronunciation_vocab_size": 99, "shape_vocab_size": 99},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8},
    "xlstm": {"hidden_size": 64, "qk_dim_factor": 1.0},
    "gemma3n_text": {"num_kv_shared_layers": 0, "laurel_rank": 8},
    **dict.fromkeys(
        ("gemma4_text", "gemma4_unified_text"),
        {"layer_types": ["sliding_attention", "full_attention"] * 2, "per_layer_config": {"1": {"head_dim": 16}, "3": {"head_dim": 16}}},
    ),
    "falcon_h1": {"mamba_d_ssm": 64},
    "xmod": {"default_language": "en_XX"},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 16, "indexer_compress_ratio": 4,
        "hc_count": 2, "hc_lowrank": 8, "ngram_vocab_size_base": 100, "split_ngram_parts": 2, "ple_embed_dim": 16, "output_gate_type": "sigmoid"},
    "dots3_note_text": {"layer_types": ["indexed_attention", "sliding_attention"] * 2, "per_layer_config": {i: {"num_attention_heads": 2, "num_key_value_heads": 2} for i in "13"}, "num_key_value_heads": 4, "head_dim": 8},
    "deepseek_v4": {"head_dim": 16, "o_groups": 2, "o_lora_rank": 8, "hc_mult": 2, "num_nextn_predict_layers": 0},
    "cpmant": {"prompt_length": 8},
}  # fmt: skip
"""What a class needs besides."""


def tiny_config(model_type: str) -> PretrainedConfig:
    """Return a configuration of a class with a few thousand parameters."""
    return _shrunk(CONFIG_MAPPING[model_type], _OVERRIDES.get(model_type))


def _shrunk(kind: type[PretrainedConfig], overrides: dict[str, Any] | None = None) -> PretrainedConfig:
    base = kind()
    fields = base.to_dict()
    names = getattr(kind, "attribute_map", {})
    small = {names.get(name, name): value for name, value in _SMALL.items() if name in fields or name in names}
    for name, value in fields.items():
        part = getattr(base, name) if isinstance(value, dict) and name != "per_layer_config" else None
        if isinstance(part, PretrainedConfig):
            small[name] = _shrunk(type(part), _OVERRIDES.get(part.model_type)).to_dict()
    return kind(**(small | (overrides or {})))
