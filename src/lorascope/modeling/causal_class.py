"""Refuse configurations of models that are no causal language models, by what they are instead."""

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig

from lorascope.errors import InputError

_AUTO = "AutoModelForCausalLM"
_OTHER_INPUTS = {"vision_config": "images", "audio_config": "sound"}


def check_causal_class(config: PretrainedConfig, name: str) -> None:
    """Check that there is a class of causal language models for a configuration.

    Raises:
        InputError: there is none in Transformers, nor one in code that comes with the model.
    """
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or _AUTO in (getattr(config, "auto_map", None) or {}):
        return
    inputs = next((what for field, what in _OTHER_INPUTS.items() if getattr(config, field, None) is not None), None)
    if getattr(config, "is_encoder_decoder", False):
        kind = "an encoder-decoder model"
    elif inputs is not None:
        kind = f"a model that takes {inputs}"
    else:
        kind = "not a causal language model"
    raise InputError(
        f"model {name} is {kind} ({config.model_type}), for which Transformers has no causal class",
        remedy="give a decoder that was made for text alone, such as Llama or Qwen",
    )
