"""Where a rank's memory went: over time, in each phase by its parts, and how it grows with the rank."""

from collections.abc import Mapping, Sequence

import numpy as np

from lorascope.analysis.cost.schema import GrowthSection, MemorySplitSection, Phase
from lorascope.analysis.cost.solo_runs import heavy_turn, runs_by_rank
from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import MemorySection
from lorascope.analysis.tradeoff import BYTES
from lorascope.records import AdapterRecord, SoloRun
from lorascope.units import to_megabytes

_SPIKE_DEVIATIONS = 3.0
_SPIKE_SHARE = 0.01
"""A start that rises above all later readings by these is a spike; less is the later variation's own."""


def memory_part(turns: Sequence[Sequence[int]], alike: Sequence[tuple[Sequence[int], int]]) -> MemorySection | None:
    """Summarise readings of memory, in MB; None without any.

    Args:
        turns: all readings of each turn in time, in bytes.
        alike: the readings of turns that take one kind of step only, and how many of them belong to the warm-up.
    """
    everything = _together(turns)
    if not len(everything):
        return None
    later = _together([readings[start:] for readings, start in alike])
    spike = start_spike(_together([readings[:start] for readings, start in alike]), later)
    return MemorySection(
        mean=to_megabytes(float(everything.mean())),
        std=to_megabytes(float(everything.std())),
        min=to_megabytes(float(everything.min())),
        max=to_megabytes(float(everything.max())),
        start_spike=to_megabytes(spike) if spike is not None else None,
        later_mean=to_megabytes(float(later.mean())) if len(later) else None,
        later_std=to_megabytes(float(later.std())) if len(later) else None,
    )


def start_spike(first: Floats, later: Floats) -> float | None:
    """Return how far the start rises above everything later; None where it does not stand out."""
    if not len(first) or not len(later):
        return None
    rise = float(first.max() - later.max())
    return rise if rise > max(_SPIKE_DEVIATIONS * later.std(), _SPIKE_SHARE * later.mean()) else None


def split_of(data: StudyData, turn: SoloRun) -> tuple[MemorySplitSection, ...]:
    """Take the memory of each phase of a turn apart; empty where a size is not known."""
    resolved, adapter = data.resolved, data.adapters.get(turn.rank)
    if resolved is None or adapter is None or resolved.dtype not in BYTES:
        return ()
    base = resolved.base_parameters * BYTES[resolved.dtype]
    parts = []
    for phase, total in phase_bytes(turn).items():
        activations = (turn.activation_bytes or 0) if phase in ("forward", "backward") else 0
        known = turn.base_bytes + _state_bytes(adapter) + activations
        parts.append(
            MemorySplitSection(
                phase=phase,
                total=total,
                program=turn.base_bytes - base,
                base=base,
                adapter=adapter.parameter_bytes,
                gradient=adapter.gradient_bytes,
                optimizer=adapter.optimizer_bytes,
                activations=activations,
                rest=total - known,
            )
        )
    return tuple(parts)


def phase_bytes(turn: SoloRun) -> dict[Phase, int]:
    """Return the memory of each phase that was measured."""
    found: Mapping[Phase, int | None] = {
        "forward": turn.forward_peak_bytes,
        "backward": turn.backward_peak_bytes,
        "optimizer": turn.optimizer_peak_bytes,
        "evaluation": turn.evaluation_peak_bytes,
        "held": turn.held_bytes,
    }
    return {phase: total for phase, total in found.items() if total is not None}


def growth_parts(data: StudyData) -> tuple[GrowthSection, ...]:
    """Fit a straight line through the ranks for each phase; empty with fewer than two ranks."""
    last = {rank: heavy_turn(turns) for rank, turns in runs_by_rank(data.solo_runs).items() if rank in data.adapters}
    if len(last) < 2 or data.resolved is None:
        return ()
    phases = [set(phase_bytes(turn)) for turn in last.values()]
    counted = float(np.mean([_state_bytes(data.adapters[rank]) / rank for rank in last]))
    parts = []
    for phase in phase_bytes(next(iter(last.values()))):
        if all(phase in found for found in phases):
            above = [phase_bytes(turn)[phase] - turn.base_bytes for turn in last.values()]
            slope, fixed = np.polyfit(np.array(list(last), dtype=np.float64), np.array(above, dtype=np.float64), 1)
            parts.append(
                GrowthSection(
                    phase=phase, fixed_bytes=float(fixed), bytes_per_rank=float(slope), counted_bytes_per_rank=counted
                )
            )
    return tuple(parts)


def _state_bytes(adapter: AdapterRecord) -> int:
    return adapter.parameter_bytes + adapter.gradient_bytes + adapter.optimizer_bytes


def _together(samples: Sequence[Sequence[int]]) -> Floats:
    return np.array([reading for turn in samples for reading in turn], dtype=np.float64)
