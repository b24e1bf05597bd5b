"""Target layers of adapters, by PEFT's rules for ``target_modules``."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.adapters.experts import wrap_experts
from lorascope.modeling.adapters.linear_kinds.registry import find_kind
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.search.trials import saved_parameters
from lorascope.spec.fields.lora import ALL_LINEAR, split_expert
from lorascope.spec.limits import sufficient_megabytes
from lorascope.spec.schema import StudySpec
from lorascope.units import format_bytes, from_megabytes

_QUERY_KEY_VALUE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
    ("c_attn",),
)
"""Names of the query, key and value projections in Transformers' models, tried in this order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """Which linear layers the tokens of rows pass, by full name, and which parameters of experts."""

    wholly: Collection[str]
    """Each call saw every token once; a layer in neither set is never called."""
    partly: Collection[str]
    """Some call saw a part of the tokens, or more than there are."""
    unloadable: Collection[str] = ()
    """Layers whose adapters PEFT does not load."""


def find_targets(
    model: PreTrainedModel,
    target_modules: tuple[str, ...] | str | None,
    selects: Callable[[str], bool] | None = None,
    *,
    reach: Reach | None = None,
) -> tuple[str, ...]:
    """Return the full names of the layers to adapt, in the model's order.

    Args:
        model: a causal language model.
        target_modules: name endings, one regular expression over full names, ``all-linear`` (every linear layer but
            the output head), or None for the query, key and value projections.
        selects: which of the layers so named are adapted, by their full names.
        reach: which layers tokens pass and PEFT loads; others are left out, or refused where they are asked for by
            name. None: all.

    Raises:
        InputError: a name or expression matches nothing, or a layer that cannot take LoRA or sees some tokens only.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    linear = adaptable(model)
    passed = [name for name in linear if reach is None or (name in reach.wholly and name not in reach.partly)]
    usable = [name for name in passed if reach is None or name not in reach.unloadable]
    if not usable:
        raise InputError(
            f"{type(model).__name__} has no linear layer that each token of a row passes and that can take LoRA",
            remedy="give a model whose layers are linear layers (nn.Linear, Conv1D)",
        )
    if target_modules is None:
        matched = query_key_value(usable) or tuple(usable)
    elif target_modules == ALL_LINEAR:
        matched = tuple(usable)
    elif isinstance(target_modules, str):
        matched = _match_expression(target_modules, modules)
    else:
        matched = _match_endings(target_modules, modules, linear)
    matched = tuple(name for name in matched if selects is None or selects(name))
    for name in matched:
        if name not in linear:
            kind = (
                "the output head"
                if modules[name] is model.get_output_embeddings()
                else f"a {type(modules[name]).__name__}"
            )
            raise InputError(
                f"target_modules matches {name}, which is {kind} and cannot take LoRA here",
                remedy=f"choose linear layers: {_endings(usable)}",
            )
    if reach is not None:
        _check_use(matched, passed, reach)
    return tuple(name for name in matched if name in passed)


def adaptable(model: PreTrainedModel) -> list[str]:
    """Return the full names of all linear layers but the output head, in the model's order."""
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if find_kind(module) is not None and module is not head]


def _check_use(matched: Sequence[str], passed: Sequence[str], reach: Reach) -> None:
    """Refuse layers that were asked for by name and cannot be used."""
    some = next((name for name in matched if name in reach.partly), None)
    if some is not None:
        raise InputError(
            f"target_modules matches {some}, which does not see each token of a row once",
            remedy=f"leave out layers that see selected tokens only (routed experts): {_endings(passed)}",
        )
    lost = next((name for name in matched if name in reach.unloadable), None)
    if lost is not None:
        raise InputError(
            f"target_modules matches {lost}, and PEFT does not load adapters of this layer of such a model",
            remedy=f"choose other layers: {_endings(name for name in passed if name not in reach.unloadable)}",
        )
    if matched and not any(name in passed for name in matched):
        raise InputError(
            f"target_modules matches layers that no token of a row passes: {_endings(matched)}",
            remedy=f"choose among {_endings(passed)}",
        )


def query_key_value(linear: Sequence[str]) -> tuple[str, ...] | None:
    """Return the query, key and value projections; None where no layers have their usual names."""
    present = {name.rpartition(".")[2] for name in linear}
    for names in _QUERY_KEY_VALUE:
        if present.issuperset(names):
            return tuple(name for name in linear if name.rpartition(".")[2] in names)
    return None


def compile_names(field: str, expression: str, remedy: str) -> re.Pattern[str]:
    """Compile a field's expression over names of layers. Raises InputError where it is none."""
    try:
        return re.compile(expression)
    except re.error as error:
        raise InputError(f"{field} is not a regular expression: {expression!r} ({error})", remedy=remedy) from error


def _match_expression(expression: str, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    remedy = "give name endings such as q_proj,v_proj, a valid expression, or all-linear"
    pattern = compile_names("target_modules", expression, remedy)
    matched = tuple(name for name in modules if pattern.fullmatch(name))
    if not matched:
        raise InputError(
            f"target_modules {expression!r} matches no module",
            remedy=f"the expression must match a whole name such as {list(modules)[-1]}",
        )
    return matched


def _match_endings(
    endings: tuple[str, ...], modules: Mapping[str, nn.Module], linear: Iterable[str]
) -> tuple[str, ...]:
    def matches(name: str, ending: str) -> bool:
        return name == ending or name.endswith(f".{ending}")

    missing = [ending for ending in endings if not any(matches(name, ending) for name in modules)]
    if missing or not endings:
        raise InputError(
            f"target_modules {', '.join(missing) or '(empty)'} matches no module of this model",
            remedy=f"modules that can take LoRA here: {_endings(linear)}",
        )
    return tuple(name for name in modules if any(matches(name, ending) for ending in endings))


def name_endings(names: Iterable[str]) -> tuple[str, ...]:
    """Return the last parts of layers' names, each once; of an expert, its parameter's."""
    return tuple(dict.fromkeys(split_expert(name)[0].rpartition(".")[2] for name in names))


def _endings(names: Iterable[str]) -> str:
    return ", ".join(name_endings(names))


def swap_in(model: PreTrainedModel, targets: tuple[str, ...]) -> dict[str, MultiLoraLinear]:
    """Replace the target layers by multi-rank LoRA layers that still hold the base layers; return them by name."""
    layers = {}
    for name in targets:
        if split_expert(name)[1] is not None:
            continue
        base = model.get_submodule(name)
        parent, _, own = name.rpartition(".")
        layers[name] = MultiLoraLinear(base)
        setattr(model.get_submodule(parent), own, layers[name])
    return layers | wrap_experts(model, [name for name in targets if split_expert(name)[1] is not None])


def check_ranks(layers: Mapping[str, MultiLoraLinear], ranks: tuple[int, ...]) -> list[Message]:
    """Refuse ranks that no layer can use; return a note for each that only some layers can use in full.

    Raises:
        InputError: a rank is larger than every target layer.
    """
    limits = {name: layer.share * min(layer.features) for name, layer in layers.items()}
    largest = max(limits.values())
    notes = []
    for rank in ranks:
        if rank > largest:
            raise InputError(
                f"rank {rank} is larger than every target layer of this model",
                remedy=f"choose ranks of at most {largest}: an update of these layers has no higher rank",
            )
        short = _endings(name for name, limit in limits.items() if limit < rank)
        if short:
            limit = min(limits.values())
            notes.append(Message("rank.above_layers", rank=rank, layers=short, limit=limit))
    return notes


def check_adapter_sizes(
    layers: Mapping[str, MultiLoraLinear], spec: StudySpec, dtype: torch.dtype, *, whole: int = 0
) -> None:
    """Check that ``max_adapter_mb`` allows the smallest rank's adapter, with ``whole`` parameters of other modules.

    Raises:
        InputError: no rank's adapter is that small.
    """
    if spec.max_adapter_mb is None:
        return

    def size(rank: int) -> int:
        return (saved_parameters(spec, rank, layers) + whole) * torch.promote_types(dtype, torch.float32).itemsize

    smallest, most = min(spec.ranks), from_megabytes(spec.max_adapter_mb)
    if size(smallest) <= most:
        return
    fits = max((rank for rank in range(1, smallest) if size(rank) <= most), default=0)
    lower = f"ask for a rank of at most {fits}" if fits else "adapt fewer layers (target_modules)"
    raise InputError(
        f"max_adapter_mb is {spec.max_adapter_mb:g}, and the nearest adapter, of rank {smallest}, takes "
        f"{format_bytes(size(smallest))}",
        remedy=f"raise it to {sufficient_megabytes(size(smallest))}, or {lower}",
    )
