"""Modules that each trial trains whole, PEFT's ``modules_to_save``: input embeddings and the output head.

A micro-batch holds rows of several trials. Each run of neighbouring rows goes through the copy of its own trial.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.packing.current import current_microbatch
from lorascope.modeling.packing.packed_layout import BASE_ONLY, MicroBatchLayout

Copy = Mapping[str, torch.Tensor]
"""A trial's weights of a module, by the names of the module's own parameters."""


class ModuleToSave(nn.Module):
    """A frozen module with any number of trained copies; what it lacks itself, such as ``weight``, is the base's."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.copies: list[Copy] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def runs(self, layout: MicroBatchLayout) -> Iterator[tuple[slice, Copy | None]]:
        """Yield the slots of neighbouring rows with the copy that they go through; None: the base's weights."""
        for adapter, first, stop in layout.runs:
            yield layout.slots(first, stop), None if adapter == BASE_ONLY else self.copies[adapter]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the module makes of tokens, [...], or of hidden states, [..., D].

        The leading dimensions flatten to the slots of the current micro-batch.
        """
        active = current_microbatch()
        if active is None or not self.copies:
            return self.base(x)
        leading = x.shape[:-1] if x.is_floating_point() else x.shape
        x_N = x.flatten(0, len(leading) - 1)
        assert len(x_N) == active.layout.n_slots, "a module to save sees every token of a micro-batch"
        y_NO = torch.cat([self._computed(x_N[slots], copy) for slots, copy in self.runs(active.layout)])
        return y_NO.view(*leading, -1)

    def _computed(self, x_n: torch.Tensor, copy: Copy | None) -> torch.Tensor:
        if copy is None:
            return self.base(x_n)
        rounded = {name: weight.to(self.base.get_parameter(name).dtype) for name, weight in copy.items()}
        found: torch.Tensor = functional_call(self.base, rounded, (x_n,))
        return found


def select_modules_to_save(model: PreTrainedModel, endings: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the full names of the modules whose names have one of these endings, as PEFT matches them.

    Raises:
        InputError: an ending matches nothing, or a module other than the input embeddings and the output head.
    """
    if not endings:
        return ()
    modules = dict(model.named_modules(remove_duplicate=False))
    usable = [name for name, module in modules.items() if module in _whole(model)]
    for ending in endings:
        matched = [name for name in modules if name.endswith(ending)]
        other = next((name for name in matched if name not in usable), None)
        if other is not None or not matched:
            problem = "no module of this model" if other is None else f"{other}, a {type(modules[other]).__name__}"
            raise InputError(
                f"modules_to_save {ending} matches {problem}",
                remedy=f"only embeddings and output heads are trained whole, here: {', '.join(usable) or 'none'}",
            )
    return tuple(name for name in usable if name.endswith(tuple(endings)))


def _whole(model: PreTrainedModel) -> list[nn.Module]:
    """Return the input embeddings and the output head, where their weights are plain numbers."""
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    plain = [one for one in both if isinstance(one, nn.Embedding) or type(one) is nn.Linear]
    return [one for one in plain if all(weight.is_floating_point() for weight in one.parameters())]


def parameters_to_save(model: PreTrainedModel, names: Iterable[str]) -> int:
    """Count the parameters of modules of a model."""
    return sum(weight.numel() for name in names for weight in model.get_submodule(name).parameters())


def saved_module_notes(model: PreTrainedModel, names: tuple[str, ...]) -> list[Message]:
    """Say what each trial trains whole, and which modules no longer share their weights then, as in PEFT."""
    if not names:
        return []
    counted = parameters_to_save(model, names)
    notes = [Message("targets.modules_to_save", modules=names, parameters=counted)]
    if weights_are_tied(model):
        notes.append(Message("targets.untied", modules=names))
    return notes


def weights_are_tied(model: PreTrainedModel) -> bool:
    """Return True if the input embeddings and the output head have a parameter in common."""
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    first, second = ({id(weight) for weight in one.parameters()} if one is not None else set() for one in both)
    return bool(first & second)


def swap_in_modules_to_save(model: PreTrainedModel, names: tuple[str, ...]) -> dict[str, ModuleToSave]:
    """Put these modules behind the copies of trials; return them by name."""
    found = {name: ModuleToSave(model.get_submodule(name)) for name in names}
    for name, module in found.items():
        model.set_submodule(name, module)
    return found
