"""Predicted cost of trial groups of several sets of target modules that train together over one base."""

from collections.abc import Sequence

from lorascope.costmodel.cost_types import MemorySplit, PlannedCost


def joint_memory(splits: Sequence[MemorySplit]) -> MemorySplit:
    """Add the states of all groups; they share the base and its micro-batches."""
    return MemorySplit(
        base_bytes=max(split.base_bytes for split in splits),
        adapter_bytes=sum(split.adapter_bytes for split in splits),
        gradient_bytes=sum(split.gradient_bytes for split in splits),
        optimizer_bytes=sum(split.optimizer_bytes for split in splits),
        activation_bytes=max(split.activation_bytes for split in splits),
        rest_bytes=max(split.rest_bytes for split in splits),
    )


def joint_cost(
    costs: Sequence[PlannedCost], *, trials: Sequence[int], memory: MemorySplit, fits: bool, largest_batch: int
) -> PlannedCost:
    """Add the costs of groups.

    Args:
        costs: of each group.
        trials: of each group, all on the same rows.
        memory: of all groups together.
        fits: whether the device has that memory.
        largest_batch: rows of mean length that fit in one micro-batch beside it.
    """
    of_tokens = sum(cost.flops_per_token * count for cost, count in zip(costs, trials, strict=True))
    return PlannedCost(
        trainable_parameters=sum(cost.trainable_parameters for cost in costs),
        adapter_bytes=sum(cost.adapter_bytes for cost in costs),
        flops_per_token=of_tokens / sum(trials),
        bytes_per_step=sum(cost.bytes_per_step for cost in costs),
        step_seconds=sum(cost.step_seconds for cost in costs),
        runtime_seconds=add_seconds([cost.runtime_seconds for cost in costs]),
        peak_memory_bytes=memory.total_bytes,
        memory_split=memory,
        fits=fits,
        largest_batch=largest_batch,
    )


def add_seconds(seconds: Sequence[float | None], *, less: float = 0.0) -> float | None:
    """Add times that are all known, less a part that they share; None where one is unknown."""
    known = [one for one in seconds if one is not None]
    return sum(known) - less if len(known) == len(seconds) else None
