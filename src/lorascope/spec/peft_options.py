"""Options of PEFT's ``LoraConfig`` that a study cannot have."""

_ONE_BASE = "only adapters and whole modules to save are trained, and all share one frozen base"
_OTHER_UPDATE = "its update is not scale * B A x, which is what ranks are compared by"
REFUSED = {
    "use_dora": "DoRA is within 1-2 % of LoRA once learning rates are tuned (arXiv 2602.04998), and takes longer",
    "trainable_token_indices": _ONE_BASE,
    "bias": _ONE_BASE,
    "layer_replication": _ONE_BASE,
    "loftq_config": _ONE_BASE,
    "ensure_weight_tying": _ONE_BASE,
    "lora_bias": _OTHER_UPDATE,
    "use_qalora": _OTHER_UPDATE,
    "use_bdlora": _OTHER_UPDATE,
    "velora_config": _OTHER_UPDATE,
    "monteclora_config": _OTHER_UPDATE,
    "kasa_config": _OTHER_UPDATE,
    "arrow_config": _OTHER_UPDATE,
    "alora_invocation_tokens": _OTHER_UPDATE,
    "eva_config": "it gives each layer its own rank before training",
    "corda_config": "it needs activations of a run over the rows before training",
    "lora_ga_config": "it needs gradients of the base's weights before training",
    "megatron_config": "Megatron's layers are not Transformers' models",
}
"""Why each is refused where it is set to something else than its default."""
_DEFAULTS = frozenset({"", "none", "null", "false", "[]", "{}"})


def is_default(value: object) -> bool:
    """Return True for the value that leaves such an option off, also as a word of the command line."""
    return not value or str(value).lower() in _DEFAULTS
