"""The turns of a rank alone, put together.

The times come from all turns. Peaks and parts of memory come from a rank's last turn: by then every rank has had one,
and what libraries keep after their first use is there for all of them.
"""

from collections.abc import Sequence
from itertools import chain

from lorascope.records import CostRecord, CostTurn


def cost_of(turns: Sequence[CostTurn]) -> CostRecord:
    """Put a rank's turns together: all steps with their warm-up first, all readings, the peak of the last turn."""
    last = turns[-1]
    warmup = [turn.step_tokens[: turn.warmup_steps] for turn in turns]
    measured = [turn.step_tokens[turn.warmup_steps :] for turn in turns]
    return CostRecord(
        rank=last.rank,
        step_seconds=(*warmup_seconds(turns), *measured_seconds(turns)),
        warmup_steps=sum(turn.warmup_steps for turn in turns),
        step_tokens=tuple(chain.from_iterable((*warmup, *measured))),
        peak_memory_bytes=training_peak(last),
        base_memory_bytes=last.base_bytes,
        memory_samples_bytes=tuple(chain.from_iterable(turn.samples_bytes for turn in turns)),
    )


def costs_by_rank(turns: Sequence[CostTurn], earlier: Sequence[CostRecord]) -> dict[int, CostRecord]:
    """Put every rank's turns together; what an earlier version measured stands where there are none."""
    by_rank = turns_by_rank(turns)
    return {cost.rank: cost for cost in earlier} | {rank: cost_of(found) for rank, found in by_rank.items()}


def turns_by_rank(turns: Sequence[CostTurn]) -> dict[int, tuple[CostTurn, ...]]:
    """Return the turns of each rank in their order, ranks ascending."""
    ranks = sorted({turn.rank for turn in turns})
    ordered = sorted(turns, key=lambda turn: turn.turn)
    return {rank: tuple(turn for turn in ordered if turn.rank == rank) for rank in ranks}


def training_peak(turn: CostTurn) -> int:
    """Return the highest memory of a step; an evaluation's is apart."""
    return max(turn.forward_peak_bytes, turn.backward_peak_bytes, turn.optimizer_peak_bytes)


def measured_seconds(turns: Sequence[CostTurn]) -> tuple[float, ...]:
    """Return the times of all steps that are no warm-up."""
    return tuple(chain.from_iterable(turn.step_seconds[turn.warmup_steps :] for turn in turns))


def warmup_seconds(turns: Sequence[CostTurn]) -> tuple[float, ...]:
    """Return the times of the warm-up steps."""
    return tuple(chain.from_iterable(turn.step_seconds[: turn.warmup_steps] for turn in turns))
