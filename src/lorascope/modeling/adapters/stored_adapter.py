"""An adapter as PEFT's two files hold it: ``adapter_config.json`` and ``adapter_model.safetensors``.

Layers, parameters of experts and modules have their full names in it, as in the files that this program writes.
Shape legend: R rank, I in_features, O out_features, E experts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lorascope.atomic import write_whole
from lorascope.errors import InputError
from lorascope.modeling.adapters.svd import Update, principal
from lorascope.modeling.adapters.tensor_file import write_tensors
from lorascope.spec.fields.lora import pattern_value, split_expert

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
Factors = tuple[torch.Tensor, torch.Tensor]
"""A [R, I] and B [O, R]."""
Modules = Mapping[str, Mapping[str, torch.Tensor]]
"""Weights of modules that were trained whole, by the names of modules and of their parameters."""
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    KeyError,
    OSError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""Errors of reading damaged files."""
_REMEDY = "bring its two files back from a copy, or start the study anew with --out"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredAdapter:
    """The content of an adapter's files."""

    config: Mapping[str, Any]
    """A ``LoraConfig``."""
    tensors: Mapping[str, torch.Tensor]
    """By their names in the file."""

    def rank_and_alpha(self, layer: str) -> tuple[int, float]:
        """Return r and ``lora_alpha`` of a layer, or of a parameter of experts."""
        config = self.config
        rank = int(pattern_value(config.get("rank_pattern") or {}, layer, config["r"]))
        return rank, float(pattern_value(config.get("alpha_pattern") or {}, layer, config["lora_alpha"]))

    def updates(self) -> dict[str, Update]:
        """Return the update of each layer, and of each expert of a parameter, by the full name.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a shape is not that of the rank.
        """
        found: dict[str, Update] = {}
        parameters = self.config.get("target_parameters") or []
        for layer, place in tensor_places(self.config["target_modules"], parameters).items():
            rank, alpha = self.rank_and_alpha(layer)
            scale = alpha / (rank**0.5 if self.config["use_rslora"] else rank)
            A, B = (self.tensors[f"{place}.lora_{which}.weight"] for which in "AB")
            n_experts = len(A) // rank if layer in parameters else 1
            if (A.ndim, B.ndim, A.shape[0], B.shape[-1]) != (2, 2, n_experts * rank, n_experts * rank):
                raise ValueError(f"the shapes {list(A.shape)} and {list(B.shape)} are not those of rank {rank}")
            own = split_factors(layer, A, B, rank) if layer in parameters else {layer: (A, B)}
            found |= {name: Update(A=own_A, B=own_B, scale=scale) for name, (own_A, own_B) in own.items()}
        return found

    def modules(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the weights of modules that were trained whole, by the names of modules and of their parameters."""
        return {
            name: {key.removeprefix(start): one for key, one in self.tensors.items() if key.startswith(start)}
            for name in self.config["modules_to_save"] or ()
            for start in [f"{PREFIX}{name}."]
        }

    def with_updates(self, updates: Mapping[str, Update]) -> "StoredAdapter":
        """Return the adapter with other updates of the same layers; whole modules stay as they are.

        The factors hold the scale: ``lora_alpha`` equals r, and rsLoRA is off.
        """
        factors = {name: (one.A, one.B * one.scale if one.scale != 1 else one.B) for name, one in updates.items()}
        ranks = {split_expert(name)[0]: len(A) for name, (A, _) in factors.items()}
        largest = max(ranks.values())
        smaller = {name: rank for name, rank in ranks.items() if rank < largest}
        own = {"r": largest, "lora_alpha": largest, "rank_pattern": smaller, "alpha_pattern": smaller}
        return StoredAdapter(
            config={**self.config, **own, "use_rslora": False, "init_lora_weights": True},
            tensors=joined_factors(factors) | module_tensors(self.modules()),
        )

    def truncated(self, rank: int) -> "StoredAdapter":
        """Return the best adapter of a smaller rank, layer by layer."""
        return self.with_updates({name: principal(one)[0].first(rank) for name, one in self.updates().items()})

    def write(self, folder: Path) -> None:
        """Write the two files."""
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS, self.tensors, {"format": "pt"})
        ordered = dict(sorted(self.config.items()))  # not what is inside: the first pattern that matches a layer counts
        write_whole(folder / CONFIG, json.dumps(ordered, indent=2) + "\n")


def read_adapter(folder: Path) -> StoredAdapter:
    """Read an adapter's files as they are.

    Raises:
        InputError: a file is missing or damaged.
    """
    with explained(folder):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return StoredAdapter(config=config, tensors=load_file(folder / WEIGHTS))


@contextmanager
def explained(folder: Path, remedy: str = _REMEDY) -> Iterator[None]:
    """Turn errors of reading an adapter's files into one for the user, with this remedy."""
    try:
        yield
    except _UNREADABLE as error:
        raise InputError(
            f"the adapter in {folder} cannot be read: {type(error).__name__}: {error}",
            remedy=remedy,
        ) from error


def experts_of_parameters(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the experts of each parameter, among names of layers and experts."""
    found: dict[str, list[str]] = {}
    for name in names:
        parameter, expert = split_expert(name)
        if expert is not None:
            found.setdefault(parameter, []).append(name)
    return found


def tensor_places(layers: Iterable[str], parameters: Sequence[str]) -> dict[str, str]:
    """Return where the tensors of layers and parameters are in a file, by their full names.

    PEFT wraps a layer of experts once for each parameter: the first is innermost.
    """
    found = {name: f"{PREFIX}{name}" for name in layers}
    for place, name in enumerate(parameters):
        layer = name.rpartition(".")[0]
        later = sum(other.rpartition(".")[0] == layer for other in parameters[place + 1 :])
        found[name] = f"{PREFIX}{layer}{'.base_layer' * later}"
    return found


def joined_factors(factors: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    """Return A and B as PEFT stores them: of a parameter, A [E R, I] expert after expert, and B [O, R E]."""
    experts = experts_of_parameters(factors)
    places = tensor_places((name for name in factors if split_expert(name)[1] is None), list(experts))
    tensors = {}
    for name, place in places.items():
        own = [factors[expert] for expert in experts.get(name, (name,))]
        A = torch.cat([A.detach().cpu() for A, _ in own])
        B = torch.stack([B.detach().cpu() for _, B in own], dim=-1).flatten(1)
        tensors[f"{place}.lora_A.weight"], tensors[f"{place}.lora_B.weight"] = A.contiguous(), B.contiguous()
    return tensors


def split_factors(name: str, A: torch.Tensor, B: torch.Tensor, rank: int) -> dict[str, Factors]:
    """Return A and B of each expert of a parameter, as ``joined_factors`` joined them."""
    n_experts = len(A) // rank
    pairs = zip(A.view(n_experts, rank, -1), B.view(len(B), rank, n_experts).permute(2, 0, 1), strict=True)
    return {f"{name}[{expert}]": (own_A, own_B.contiguous()) for expert, (own_A, own_B) in enumerate(pairs)}


def module_tensors(modules: Modules) -> dict[str, torch.Tensor]:
    """Return the weights of whole modules by their names in a file."""
    return {
        f"{PREFIX}{name}.{key}": weight.detach().cpu().contiguous()
        for name, weights in modules.items()
        for key, weight in weights.items()
    }
