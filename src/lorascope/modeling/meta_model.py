"""The model on the meta device: its shapes without its weights, from its configuration alone."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from lorascope.errors import InputError
from lorascope.modeling.causal_class import check_causal_class
from lorascope.modeling.load import (
    ModelSource,
    converted_folder,
    explained,
    locate_gguf,
    locate_model,
    quiet,
    unusable,
)

_NEEDED = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
}
"""Fields that a configuration must have, under any of these names: Transformers would fill in another model's value."""


def locate_configuration(model: str, *, trust_remote_code: bool) -> tuple[ModelSource, str | None]:
    """Find the model that the user named, without converting it.

    Returns:
        Its location, and the name of the GGUF file in there if no copy of it was made yet.

    Raises:
        InputError: nothing of that name is here and it cannot be a hub id.
    """
    gguf = locate_gguf(model)
    if gguf is not None and not converted_folder(gguf).is_dir():
        return ModelSource(path=str(gguf.parent), trust_remote_code=trust_remote_code), gguf.name
    return locate_model(model, trust_remote_code=trust_remote_code), None


def empty_model(source: ModelSource, gguf_file: str | None = None) -> PreTrainedModel:
    """Make the model on Torch's meta device, where tensors have shapes and no memory.

    Raises:
        InputError: there is no configuration, Transformers does not know its model type, or it lacks sizes.
    """
    options: dict[str, Any] = {"trust_remote_code": source.trust_remote_code}
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    with explained(lambda error: unusable("configuration of model", source, error)), quiet():
        config = AutoConfig.from_pretrained(source.path, **options)
        check_causal_class(config, _shown(source))
        if gguf_file is None:
            _check_sizes(source, PretrainedConfig.get_config_dict(source.path)[0])
        # a quantised copy has the same shapes, and its own loader wants a GPU
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"), no_init_weights():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=source.trust_remote_code
            )
        model.tie_weights()  # which initialising the weights would have done
    return model.requires_grad_(requires_grad=False).eval()


def _check_sizes(source: ModelSource, written: dict[str, Any]) -> None:
    """Refuse a configuration that leaves its sizes to Transformers' defaults."""
    parts = [written, *(p for name, p in written.items() if name.endswith("text_config") and isinstance(p, dict))]
    for name, spellings in _NEEDED.items():
        if not any(spelling in part for part in parts for spelling in spellings):
            raise InputError(
                f"config.json of model {_shown(source)} does not say {name}",
                remedy="give the config.json that was saved with the model",
            )


def _shown(source: ModelSource) -> str:
    return Path(source.path).name if Path(source.path).is_dir() else source.path
