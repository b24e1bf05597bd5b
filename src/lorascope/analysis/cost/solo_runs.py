"""Solo runs of each rank, combined.

Times come from all runs. Peaks and parts of memory come from a rank's last run with the heaviest batch: by then every
rank has had one, and most of what libraries keep after their first use is there for all of them. The rest is taken off:
the memory of that run is taken above its own base, and put on one base for all ranks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean, median

from lorascope.records import AdapterRecord, Arm, SoloRun

_LEVELS = (
    "base_bytes", "forward_peak_bytes", "backward_peak_bytes", "optimizer_peak_bytes", "evaluation_peak_bytes",
    "held_bytes", "after_bytes",
)  # fmt: skip
"""Readings of a solo run that include its base."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoloCost:
    """Cost of a rank alone, from all its solo runs."""

    step_seconds: tuple[float, ...]
    """Of every measured step."""
    step_tokens: tuple[int, ...]
    """Real tokens of these steps."""
    base_bytes: int
    """Memory before the adapter was made."""
    peak_bytes: int
    """Peak memory of a training step."""
    samples_bytes: tuple[int, ...]
    """Readings in time, warm-up included."""

    @property
    def median_seconds(self) -> float:
        """Median step."""
        return median(self.step_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all measured steps divided by their time."""
        return sum(self.step_tokens) / math.fsum(self.step_seconds)

    @property
    def seconds_per_token(self) -> float:
        """Median step divided by the mean tokens of a step."""
        return self.median_seconds / fmean(self.step_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredCost:
    """Cost of a rank as limits compare it; None where it was not measured."""

    rank: int
    adapter_bytes: int | None
    step_seconds: float | None
    """Median step."""
    runtime_seconds: float | None
    """Of all training steps."""
    peak_memory_bytes: int | None


def measured_cost(
    rank: int, adapter: AdapterRecord | None, cost: SoloCost | None, total_steps: int | None
) -> MeasuredCost:
    """Return the cost of a rank alone, for as many steps as its trials train."""
    seconds = cost.median_seconds if cost else None
    return MeasuredCost(
        rank=rank,
        adapter_bytes=adapter.saved_bytes if adapter else None,
        step_seconds=seconds,
        runtime_seconds=seconds * total_steps if seconds is not None and total_steps is not None else None,
        peak_memory_bytes=cost.peak_bytes if cost else None,
    )


def costs_by_rank(runs: Sequence[SoloRun]) -> dict[int, SoloCost]:
    """Combine every rank's runs."""
    return {rank: _combined(found) for rank, found in on_one_base(runs_by_rank(runs)).items()}


def costs_by_arm(runs: Sequence[SoloRun]) -> dict[Arm, SoloCost]:
    """Combine every rank's runs in every set of target modules, the ranks of a set on one base."""
    return {
        (targets, rank): cost
        for targets in dict.fromkeys(run.targets for run in runs)
        for rank, cost in costs_by_rank([run for run in runs if run.targets == targets]).items()
    }


def _combined(runs: Sequence[SoloRun]) -> SoloCost:
    heaviest = heaviest_run(runs)
    return SoloCost(
        step_seconds=measured_seconds(runs),
        step_tokens=tuple(chain.from_iterable(run.step_tokens[run.warmup_steps :] for run in runs)),
        base_bytes=heaviest.base_bytes,
        peak_bytes=heaviest.peak_bytes,
        samples_bytes=tuple(chain.from_iterable(run.samples_bytes for run in runs)),
    )


def runs_by_rank(runs: Sequence[SoloRun]) -> dict[int, tuple[SoloRun, ...]]:
    """Return the runs of each rank in their order, ranks ascending."""
    ranks = sorted({run.rank for run in runs})
    ordered = sorted(runs, key=lambda run: run.repeat)
    return {rank: tuple(run for run in ordered if run.rank == rank) for rank in ranks}


def runs_by_arm(runs: Sequence[SoloRun]) -> dict[Arm, tuple[SoloRun, ...]]:
    """Return the runs of each rank in each set of target modules, in their order."""
    arms = dict.fromkeys(run.arm for run in runs)
    return {arm: tuple(run for run in runs if run.arm == arm) for arm in arms}


def on_one_base(runs: Mapping[int, tuple[SoloRun, ...]]) -> dict[int, tuple[SoloRun, ...]]:
    """Shift the phases of each rank's run with the heaviest batch from its own base to the lowest of all ranks'."""
    heaviest = {rank: heaviest_run(found) for rank, found in runs.items()}
    lowest = min((run.base_bytes for run in heaviest.values()), default=0)
    return {
        rank: tuple(_shifted(run, lowest - run.base_bytes) if run is heaviest[rank] else run for run in found)
        for rank, found in runs.items()
    }


def heaviest_run(runs: Sequence[SoloRun]) -> SoloRun:
    """Return the last run that had the heaviest batch; the last of all where memory ran out in that."""
    return next((run for run in reversed(runs) if run.heaviest_tokens is not None), runs[-1])


def _shifted(run: SoloRun, by: int) -> SoloRun:
    levels = {name: getattr(run, name) for name in _LEVELS}
    return replace(run, **{name: level + by for name, level in levels.items() if level is not None})


def measured_seconds(runs: Sequence[SoloRun]) -> tuple[float, ...]:
    """Return the times of all measured steps."""
    return tuple(chain.from_iterable(run.measured_seconds for run in runs))


def pace_spread(runs: Sequence[SoloRun]) -> float:
    """Return by what share the slowest of a rank's runs was slower than the fastest; 0 for a single one."""
    paces = [median(run.measured_seconds) for run in runs]
    return max(paces) / min(paces) - 1
