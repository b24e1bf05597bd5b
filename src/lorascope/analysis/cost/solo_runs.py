"""The turns of a rank alone, put together.

The times come from all turns. Peaks and parts of memory come from a rank's last turn with the heaviest batch: by then
every rank has had one, and most of what libraries keep after their first use is there for all of them. The rest is
taken off: the memory of that turn is read above what was there before, and put on one base for all ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median

import numpy as np

from lorascope.records import AdapterRecord, CostRecord, SoloRun


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredCost:
    """What a rank alone takes; None where it was not measured."""

    rank: int
    adapter_bytes: int | None
    step_seconds: float | None
    """Median step after the warm-up."""
    runtime_seconds: float | None
    """Of all training steps."""
    peak_memory_bytes: int | None


def measured_cost(
    rank: int, adapter: AdapterRecord | None, cost: CostRecord | None, total_steps: int | None
) -> MeasuredCost:
    """Put together what a rank alone takes, for as many steps as its trials train."""
    measured = cost.step_seconds[cost.warmup_steps :] if cost else ()
    seconds = float(np.median(measured)) if measured else None
    return MeasuredCost(
        rank=rank,
        adapter_bytes=adapter.parameter_bytes if adapter else None,
        step_seconds=seconds,
        runtime_seconds=seconds * total_steps if seconds is not None and total_steps is not None else None,
        peak_memory_bytes=cost.peak_memory_bytes if cost else None,
    )


def cost_of(turns: Sequence[SoloRun]) -> CostRecord:
    """Put a rank's turns together: all steps with their warm-up first, all readings, the peak of the heaviest batch."""
    heavy = heavy_turn(turns)
    warmup = [turn.step_tokens[: turn.warmup_steps] for turn in turns]
    measured = [turn.step_tokens[turn.warmup_steps :] for turn in turns]
    return CostRecord(
        rank=heavy.rank,
        step_seconds=(*warmup_seconds(turns), *measured_seconds(turns)),
        warmup_steps=sum(turn.warmup_steps for turn in turns),
        step_tokens=tuple(chain.from_iterable((*warmup, *measured))),
        peak_memory_bytes=training_peak(heavy),
        base_memory_bytes=heavy.base_bytes,
        memory_samples_bytes=tuple(chain.from_iterable(turn.samples_bytes for turn in turns)),
    )


def costs_by_rank(turns: Sequence[SoloRun], earlier: Sequence[CostRecord]) -> dict[int, CostRecord]:
    """Put every rank's turns together; what an earlier version measured stands where there are none."""
    by_rank = on_one_base(runs_by_rank(turns))
    return {cost.rank: cost for cost in earlier} | {rank: cost_of(found) for rank, found in by_rank.items()}


def runs_by_rank(turns: Sequence[SoloRun]) -> dict[int, tuple[SoloRun, ...]]:
    """Return the turns of each rank in their order, ranks ascending."""
    ranks = sorted({turn.rank for turn in turns})
    ordered = sorted(turns, key=lambda turn: turn.turn)
    return {rank: tuple(turn for turn in ordered if turn.rank == rank) for rank in ranks}


def on_one_base(turns: Mapping[int, tuple[SoloRun, ...]]) -> dict[int, tuple[SoloRun, ...]]:
    """Shift the phases of each rank's turn with the heaviest batch from its own base to the lowest of all ranks'."""
    heavy = {rank: heavy_turn(found) for rank, found in turns.items()}
    lowest = min((turn.base_bytes for turn in heavy.values()), default=0)
    return {
        rank: tuple(_shifted(turn, lowest - turn.base_bytes) if turn is heavy[rank] else turn for turn in found)
        for rank, found in turns.items()
    }


def heavy_turn(turns: Sequence[SoloRun]) -> SoloRun:
    """Return the last turn that had the heaviest batch; the last of all where memory ran out in that."""
    return next((turn for turn in reversed(turns) if turn.heaviest_tokens is not None), turns[-1])


def _shifted(turn: SoloRun, by: int) -> SoloRun:
    evaluation = turn.evaluation_peak_bytes
    return replace(
        turn,
        base_bytes=turn.base_bytes + by,
        forward_peak_bytes=turn.forward_peak_bytes + by,
        backward_peak_bytes=turn.backward_peak_bytes + by,
        optimizer_peak_bytes=turn.optimizer_peak_bytes + by,
        evaluation_peak_bytes=None if evaluation is None else evaluation + by,
        held_bytes=turn.held_bytes + by,
        after_bytes=turn.after_bytes + by,
    )


def training_peak(turn: SoloRun) -> int:
    """Return the highest memory of a step; an evaluation's is apart."""
    return max(turn.forward_peak_bytes, turn.backward_peak_bytes, turn.optimizer_peak_bytes)


def measured_seconds(turns: Sequence[SoloRun]) -> tuple[float, ...]:
    """Return the times of all steps that are no warm-up."""
    return tuple(chain.from_iterable(turn.step_seconds[turn.warmup_steps :] for turn in turns))


def paces_apart(turns: Sequence[SoloRun]) -> float:
    """Return by what share the slowest of a rank's turns was slower than the quickest; 0 of a single one."""
    paces = [median(seconds) for turn in turns if (seconds := measured_seconds([turn]))]
    return max(paces) / min(paces) - 1 if paces else 0.0


def warmup_seconds(turns: Sequence[SoloRun]) -> tuple[float, ...]:
    """Return the times of the warm-up steps."""
    return tuple(chain.from_iterable(turn.step_seconds[: turn.warmup_steps] for turn in turns))
