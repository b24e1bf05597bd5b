"""Initial values of adapters that PEFT makes from the base's weights: PiSSA and OLoRA.

PEFT subtracts them from the base. Here all ranks share one base, which stays as it is, so each adapter's output is
reduced by its initial update instead (``LayerAdapter.initial``): (W - scale * B0 A0) x + scale * B A x either way.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.spec.fields.lora import pattern_value
from lorascope.spec.schema import StudySpec

_SEED = 0
"""Of the randomised SVD, so that a continued study has the same initial values."""


def check_initialisation(layers: Mapping[str, MultiLoraLinear], spec: StudySpec) -> None:
    """Check that initial values can be made from the weights of these layers.

    Raises:
        InputError: PEFT is not installed, a layer stores no plain weight, or it is too small for a rank.
    """
    how = spec.init_lora_weights
    if not spec.starts_from_base:
        return
    if importlib.util.find_spec("peft") is None:
        raise InputError(f"init_lora_weights {how} needs PEFT, which is not installed", remedy="pip install peft")
    for name, layer in layers.items():
        if layer.kind.weight(layer.base) is None or (layer.kind.fan_in_fan_out and how == "olora"):
            raise InputError(
                f"init_lora_weights {how} cannot be made from {name}, a {type(layer.base).__name__}",
                remedy="leave init_lora_weights out, or choose other target_modules",
            )
        most, rank = min(layer.features), max(pattern_value(spec.rank_pattern, name, rank) for rank in spec.ranks)
        if rank > most:
            raise InputError(
                f"init_lora_weights {how} makes at most rank {most} from {name}, and rank {rank} is asked for",
                remedy=f"choose ranks of at most {most}, or leave init_lora_weights out",
            )


def saved_rank_note(spec: StudySpec) -> list[Message]:
    """Return a note where adapters are saved with another rank than they are trained with."""
    return [Message("rank.saved_twice", how=str(spec.init_lora_weights))] if spec.starts_from_base else []


def factors_of_base(layer: MultiLoraLinear, rank: int, scale: float, how: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A [R, I] and B [O, R] by PEFT's own code; made once for all trials of a rank and scale."""
    key = (how, rank, scale)
    if key not in layer.initial_factors:
        layer.initial_factors[key] = _made_by_peft(layer, rank, scale, how)
    return layer.initial_factors[key]


def kept_factors(layers: Iterable[MultiLoraLinear]) -> dict[int, int]:
    """Return the bytes of each tensor that ``factors_of_base`` keeps for these layers, by its id."""
    kept = (tensor for layer in layers for pair in layer.initial_factors.values() for tensor in pair)
    return {id(tensor): tensor.nbytes for tensor in kept}


def _made_by_peft(layer: MultiLoraLinear, rank: int, scale: float, how: str) -> tuple[torch.Tensor, torch.Tensor]:
    peft: Any = importlib.import_module("peft")  # optional, and takes seconds to import
    weight_OI = layer.kind.weight(layer.base)
    assert weight_OI is not None
    n_in, n_out = layer.features
    copy = nn.Linear(n_in, n_out, bias=False, device=weight_OI.device, dtype=torch.float32)
    copy.weight.data = weight_OI.detach().to(torch.float32, copy=True)
    holder = nn.ModuleDict({"layer": copy})
    config = peft.LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=["layer"], init_lora_weights=how)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(_SEED)
        peft.inject_adapter_in_model(config, holder)
    made: Any = holder["layer"]
    A, B = made.lora_A["default"].weight, made.lora_B["default"].weight
    wide = torch.promote_types(weight_OI.dtype, torch.float32)
    return A.detach().to(wide), B.detach().to(wide)
