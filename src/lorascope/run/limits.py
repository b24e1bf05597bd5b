"""Refuse limits that no rank keeps before joint training: by adapter sizes first, then by the solo runs."""

from collections.abc import Mapping, Sequence

import torch

from lorascope.analysis.cost.solo_runs import costs_by_rank, measured_cost
from lorascope.analysis.verdict.limits import RankedCost, none_within
from lorascope.errors import InputError
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.records import AdapterRecord, SoloRun
from lorascope.spec.limits import Limit, limits_of, sufficient_megabytes, worst_share
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.numbers import lower_first
from lorascope.text.say import say
from lorascope.units import format_bytes, from_megabytes, lora_parameters


def check_adapter_sizes(layers: Mapping[str, MultiLoraLinear], spec: StudySpec, dtype: torch.dtype) -> None:
    """Check that ``max_adapter_mb`` allows the smallest rank's adapter.

    Raises:
        InputError: no rank's adapter is that small.
    """
    if spec.max_adapter_mb is None:
        return
    per_rank = lora_parameters(1, [layer.features for layer in layers.values()])
    per_rank *= torch.promote_types(dtype, torch.float32).itemsize
    smallest, most = min(spec.ranks), from_megabytes(spec.max_adapter_mb)
    if smallest * per_rank <= most:
        return
    fits = int(most // per_rank)
    lower = f"ask for a rank of at most {fits}" if fits else "adapt fewer layers (target_modules)"
    raise InputError(
        f"max_adapter_mb is {spec.max_adapter_mb:g}, and the nearest adapter, of rank {smallest}, takes "
        f"{format_bytes(smallest * per_rank)}",
        remedy=f"raise it to {sufficient_megabytes(smallest * per_rank)}, or {lower}",
    )


def check_measured(store: StudyStore, spec: StudySpec, total_steps: int) -> None:
    """Check that some rank may be within all limits, as far as it was measured.

    Raises:
        InputError: no rank is within the limits; it says which comes nearest.
    """
    limits = limits_of(spec)
    if not limits:
        return
    adapters = {adapter.rank: adapter for adapter in store.read(AdapterRecord)}
    alone = costs_by_rank(store.read(SoloRun))
    costs = [measured_cost(rank, adapters.get(rank), alone.get(rank), total_steps) for rank in sorted(spec.ranks)]
    if all(any(limit.exceeded(cost) for limit in limits) for cost in costs):
        raise InputError(lower_first(say(none_within(limits, costs))), remedy=remedy_text(limits, costs))


def remedy_text(limits: Sequence[Limit], costs: Sequence[RankedCost]) -> str:
    """State how far the limits would have to be raised for the nearest rank."""
    nearest = min(costs, key=lambda cost: worst_share(limits, cost))
    raised = " and ".join(
        f"{limit.field} to {limit.sufficient(taken)}"
        for limit in limits
        if limit.exceeded(nearest) and (taken := limit.taken(nearest)) is not None
    )
    return f"raise {raised} and run the same command, or ask for smaller ranks in a new folder"
