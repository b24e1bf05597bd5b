"""A PEFT ``LoraConfig`` as the starting point of a study's fields."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.spec.peft_options import REFUSED, is_default

ADAPTER_CONFIG = "adapter_config.json"
_SAME = (
    "lora_dropout", "target_modules", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "init_lora_weights", "modules_to_save",
)  # fmt: skip
"""Options that are fields of a study under the same name."""
_UNSET: tuple[object, ...] = (None, [], {}, "")
"""Values of such an option that leave it as it is by default; block 0 and ``false`` say something."""
_OWN = frozenset({"r", "lora_alpha", "use_rslora", "base_model_name_or_path", "peft_type", "task_type"})
_WITHOUT_EFFECT = frozenset(
    {"auto_mapping", "fan_in_fan_out", "inference_mode", "megatron_core", "peft_version", "qalora_group_size"}
    | {"runtime_config"}
)
"""Options that PEFT fills in, or that mean nothing without another one."""
_DEFAULT_RANK = _DEFAULT_ALPHA = 8


def read_peft_config(path: Path) -> dict[str, object]:
    """Read a ``LoraConfig``, a JSON file or that of an adapter's folder, as fields of a study.

    Options that a study cannot have are among them, where they are set: validation refuses them with their reasons.

    Raises:
        InputError: the file cannot be read, or is none of LoRA over a causal language model.
    """
    file = path / ADAPTER_CONFIG if path.is_dir() else path
    config = read_object(file)
    kind, task = config.get("peft_type", "LORA"), config.get("task_type") or "CAUSAL_LM"
    if kind != "LORA" or task != "CAUSAL_LM":
        raise InputError(
            f"{file} configures {kind} for {task}, and a study trains LoRA for CAUSAL_LM",
            remedy="give a LoraConfig of a causal language model",
        )
    for name in unknown_options(config):
        if not is_default(config[name]):
            raise InputError(
                f"{file} sets {name}, an option that is not known here", remedy=f"take {name} out of a copy of the file"
            )
    fields: dict[str, object] = {
        "ranks": (config.get("r", _DEFAULT_RANK),),
        "lora_alpha": config.get("lora_alpha", _DEFAULT_ALPHA),
        "alpha_rule": "rslora" if config.get("use_rslora") else "fixed",
        "target_modules": config.get("target_modules"),
    }
    fields |= {name: config[name] for name in REFUSED if not is_default(config.get(name))}
    fields |= {name: config[name] for name in _SAME if config.get(name) not in _UNSET}
    if isinstance(fields.get("layers_to_transform"), int):
        fields["layers_to_transform"] = (fields["layers_to_transform"],)
    if config.get("base_model_name_or_path"):
        fields["model"] = config["base_model_name_or_path"]
    return fields


def with_peft_config(start: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a ``LoraConfig`` and those that the user gave, which win.

    Raises:
        InputError: neither names target modules, which PEFT chooses by the model's type.
    """
    if start.get("target_modules") is None and "target_modules" not in given:
        raise InputError(
            "the LoraConfig names no target_modules, which PEFT then chooses by the type of the model",
            remedy="give --target-modules, such as q_proj,v_proj or all-linear",
        )
    proportional = given.get("alpha_rule") == "proportional"
    return {**{name: value for name, value in start.items() if not (proportional and name == "lora_alpha")}, **given}


def unknown_options(config: Mapping[str, object]) -> list[str]:
    """Return the names of options that are neither a study's nor refused for a known reason."""
    return [name for name in config if name not in {*_SAME, *_OWN, *_WITHOUT_EFFECT, *REFUSED}]


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises InputError where it cannot be read or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"the LoraConfig {file} cannot be read: {error.strerror}",
            remedy=f"give a JSON file, or a folder with {ADAPTER_CONFIG}",
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is not JSON: {error}", remedy=f"give {ADAPTER_CONFIG} as PEFT's save_pretrained writes it"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}, not an object", remedy="give a LoraConfig")
    return content
