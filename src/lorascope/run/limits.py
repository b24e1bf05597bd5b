"""Limits that no rank can keep are refused before joint training: by shapes first, then by the solo measurements."""

from collections.abc import Mapping

import torch

from lorascope.analysis.cost.solo_runs import costs_by_rank, measured_cost
from lorascope.analysis.verdict.limits import enough_megabytes, nearest_text, remedy_text
from lorascope.errors import InputError
from lorascope.modeling.adapters.lora import MultiLoraLinear, linear_features
from lorascope.records import AdapterRecord, CostRecord, SoloRun
from lorascope.spec.limits import limits_of
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.units import format_bytes, from_megabytes


def check_adapter_sizes(layers: Mapping[str, MultiLoraLinear], spec: StudySpec, dtype: torch.dtype) -> None:
    """Refuse a ``max_adapter_mb`` below the smallest rank's adapter.

    Raises:
        InputError: no rank's adapter is that small.
    """
    if spec.max_adapter_mb is None:
        return
    per_rank = sum(sum(linear_features(layer.base)) for layer in layers.values())
    per_rank *= torch.promote_types(dtype, torch.float32).itemsize
    smallest, most = min(spec.ranks), from_megabytes(spec.max_adapter_mb)
    if smallest * per_rank <= most:
        return
    fits = int(most // per_rank)
    lower = f"ask for a rank of at most {fits}" if fits else "adapt fewer layers (target_modules)"
    raise InputError(
        f"max_adapter_mb is {spec.max_adapter_mb:g}, and the nearest adapter, of rank {smallest}, takes "
        f"{format_bytes(smallest * per_rank)}",
        remedy=f"raise it to {enough_megabytes(smallest * per_rank)}, or {lower}",
    )


def check_measured(store: StudyStore, spec: StudySpec, total_steps: int) -> None:
    """Refuse to train when every rank was measured to be beyond a limit.

    Raises:
        InputError: no rank is within the limits; it says which comes nearest.
    """
    limits = limits_of(spec)
    if not limits:
        return
    adapters = {adapter.rank: adapter for adapter in store.read(AdapterRecord)}
    alone = costs_by_rank(store.read(SoloRun), store.read(CostRecord))
    costs = [measured_cost(rank, adapters.get(rank), alone.get(rank), total_steps) for rank in sorted(spec.ranks)]
    if all(any(limit.exceeded(cost) for limit in limits) for cost in costs):
        raise InputError(nearest_text(limits, costs), remedy=remedy_text(limits, costs))
