"""Target layers of a study: those that ``target_modules`` names, narrowed by PEFT's other rules."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from torch import nn
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.adapters.experts import (
    expert_features,
    expert_names,
    expert_parameters,
    experts_of_token,
    parameter_endings,
)
from lorascope.modeling.adapters.linear_kinds.registry import linear_features
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.targets import Reach, compile_names, find_targets
from lorascope.search.target_sets import studies_by_set
from lorascope.spec.fields.lora import pattern_value, split_expert
from lorascope.spec.schema import StudySpec

_FIRST_NUMBER = r".*?\.[^.]*\.(\d+)\."


def select_sets(model: PreTrainedModel, spec: StudySpec, reach: Reach | None = None) -> dict[str, tuple[str, ...]]:
    """Return the full names of the layers of each set by the set's name; see ``find_targets``.

    Layers come first, in the model's order, and then the experts of parameters, each a layer of its own.

    Raises:
        InputError: a name, number or pattern matches no layer, or matches one that cannot take LoRA; or two sets are
            the same layers of this model.
    """
    sets = {name: _select(model, one, reach) for name, one in studies_by_set(spec).items()}
    for one, other in combinations(sets, 2):
        if sets[one] == sets[other]:
            raise InputError(
                f"target_modules {one} and {other} are the same {len(sets[one])} layers of this model",
                remedy="leave one of them out",
            )
    found = join_sets(model, sets)
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(spec, field):
            if not any(pattern_value({key: True}, name, default=False) for name in found):
                raise InputError(f"{field} {key!r} matches no target layer", remedy=_some(found))
    return sets


def join_sets(model: PreTrainedModel, sets: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the layers of all sets, each once, in the model's order, and their experts."""
    adapted = dict.fromkeys(name for names in sets.values() for name in names)
    layers = (name for name, _ in model.named_modules() if name in adapted)
    return (*layers, *(name for name in adapted if split_expert(name)[1] is not None))


def _select(model: PreTrainedModel, spec: StudySpec, reach: Reach | None) -> tuple[str, ...]:
    """Return the layers of a study with one set."""
    (targets,) = spec.target_sets
    if spec.target_parameters and targets == ():
        found: tuple[str, ...] = ()
    elif _names_only(spec):
        found = find_targets(model, targets, reach=reach)
    else:
        found = _narrowed(model, spec, reach)
    experts = expert_parameters(model)
    found += tuple(
        name
        for parameter in _select_parameters(model, experts, spec, reach)
        for name in expert_names(parameter, experts[parameter])
    )
    if all(pattern_value(spec.rank_pattern, name, 0) for name in found):
        raise InputError(
            "rank_pattern gives every target layer a rank of its own, so that ranks have nothing to compare",
            remedy="leave some layers to the ranks",
        )
    for name in found:
        parameter, expert = split_expert(name)
        features = (
            linear_features(model.get_submodule(name))
            if expert is None
            else expert_features(experts[parameter], parameter)
        )
        rank, largest = pattern_value(spec.rank_pattern, name, 0), min(features)
        if rank > largest:
            raise InputError(
                f"rank_pattern gives {name} rank {rank}, and its update has at most rank {largest}",
                remedy=f"choose a rank of at most {largest}",
            )
    return found


def _select_parameters(
    model: PreTrainedModel, experts: Mapping[str, nn.Module], spec: StudySpec, reach: Reach | None
) -> tuple[str, ...]:
    """Return the full names of the experts' parameters that a study adapts, which PEFT matches by their endings."""
    if not spec.target_parameters:
        return ()
    known = ", ".join(parameter_endings(experts))
    remedy = f"parameters of experts here: {known}" if known else "leave target_parameters out: this model has none"
    names = [name for name, _ in model.named_parameters()]
    found: list[str] = []
    for ending in spec.target_parameters:
        matched = [name for name in names if f".{name}".endswith(f".{ending}")]
        if not matched:
            raise InputError(f"target_parameters {ending!r} matches no parameter of this model", remedy=remedy)
        other = next((name for name in matched if name not in experts), None)
        if other is not None:
            raise InputError(f"target_parameters matches {other}, which cannot take LoRA here", remedy=remedy)
        found += matched
    passed = tuple(name for name in experts if name in found and (reach is None or name in reach.wholly))
    if not passed:
        raise InputError("target_parameters matches experts that no token of a row passes", remedy=remedy)
    return passed


def share_ranks(model: PreTrainedModel, layers: Mapping[str, MultiLoraLinear], spec: StudySpec) -> list[Message]:
    """Give experts their share of the ranks, as ``expert_rank_rule`` says; return what the report says of it.

    Raises:
        InputError: the configuration does not say how many experts a token passes.
    """
    experts = {name: layer for name, layer in layers.items() if split_expert(name)[1] is not None}
    if not experts:
        return []
    if spec.expert_rank_rule == "same":
        return [Message("targets.expert_ranks", count=len(experts))]
    share = experts_of_token(model)
    if share is None:
        raise InputError(
            f"the configuration of {type(model).__name__} does not say how many experts a token passes",
            remedy="set expert_rank_rule to same",
        )
    for layer in experts.values():
        layer.share = share
    return [Message("targets.expert_shares", count=len(experts), share=share)]


def largest_share(layers: Mapping[str, MultiLoraLinear]) -> int:
    """Return what the rank is divided by in experts; 1 without any."""
    return max((layer.share for layer in layers.values()), default=1)


def layers_of_ranks(layers: Mapping[str, MultiLoraLinear], spec: StudySpec) -> dict[str, MultiLoraLinear]:
    """Return the layers whose rank is that of the adapter, not one of ``rank_pattern``."""
    return {name: layer for name, layer in layers.items() if not pattern_value(spec.rank_pattern, name, 0)}


def own_ranks(names: Sequence[str], spec: StudySpec) -> dict[str, int]:
    """Return the ranks of layers that have their own in every adapter."""
    return {name: rank for name in names if (rank := pattern_value(spec.rank_pattern, name, 0))}


def _names_only(spec: StudySpec) -> bool:
    return not spec.exclude_modules and not spec.layers_to_transform


def _narrowed(model: PreTrainedModel, spec: StudySpec, reach: Reach | None) -> tuple[str, ...]:
    in_block, excluded = _block_rule(spec), _exclusion(spec)
    named: list[str] = []

    def selects(name: str) -> bool:
        named.append(name)
        return in_block(name) and not excluded(name)

    (targets,) = spec.target_sets
    found = find_targets(model, targets, selects, reach=reach)
    if spec.exclude_modules and not any(excluded(name) for name, _ in model.named_modules()):
        shown = spec.exclude_modules if isinstance(spec.exclude_modules, str) else ", ".join(spec.exclude_modules)
        raise InputError(f"exclude_modules {shown} matches no layer of this model", remedy=_some(named))
    if not found:
        raise InputError(
            "exclude_modules and layers_to_transform leave no target layer", remedy=f"exclude less; {_some(named)}"
        )
    return found


def _exclusion(spec: StudySpec) -> Callable[[str], bool]:
    given = spec.exclude_modules or ()
    if not isinstance(given, str):
        return lambda name: name in given or name.endswith(tuple(f".{ending}" for ending in given))
    remedy = "give name endings such as o_proj,down_proj, or a valid expression"
    pattern = compile_names("exclude_modules", given, remedy)
    return lambda name: pattern.fullmatch(name) is not None


def _block_rule(spec: StudySpec) -> Callable[[str], bool]:
    """Return the rule of ``layers_to_transform``: PEFT's number of a layer's block is one of these."""
    blocks, lists = spec.layers_to_transform, spec.layers_pattern
    lists = (lists,) if isinstance(lists, str) else lists
    patterns = [rf"(?:^|.*?\.){one}\.(\d+)\." for one in lists or ()] or [_FIRST_NUMBER]

    def selects(name: str) -> bool:
        if not blocks:
            return True
        found = next((match for match in (re.match(one, name) for one in patterns) if match), None)
        return found is not None and int(found.group(1)) in blocks

    return selects


def _some(names: Sequence[str]) -> str:
    return f"target layers have names such as {names[0]}" if names else "name other layers in target_modules"
