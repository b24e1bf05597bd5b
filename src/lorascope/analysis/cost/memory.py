"""Memory of a rank: over time, by phase and part, and its growth with the rank."""

from collections.abc import Mapping, Sequence

import numpy as np

from lorascope.analysis.cost.schema import GrowthSection, MemorySplitSection, Phase
from lorascope.analysis.cost.solo_runs import heaviest_run, runs_by_rank
from lorascope.analysis.estimates.losses import Floats
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import MemorySection
from lorascope.records import AdapterRecord, SoloRun
from lorascope.units import DTYPE_BYTES, to_megabytes

_SPIKE_DEVIATIONS = 3.0
_SPIKE_SHARE = 0.01
"""A start that rises above all later readings by both of these is a spike."""


def memory_section(runs: Sequence[SoloRun]) -> MemorySection | None:
    """Summarize a rank's readings of memory, in MB; None without any.

    The start is compared with the rest in runs whose steps are all on the typical batch, if there are any.
    """
    everything = _together([run.samples_bytes for run in runs])
    if not len(everything):
        return None
    alike = [run for run in runs if run.heaviest_tokens is None] or runs
    later = _together([run.samples_bytes[run.warmup_samples :] for run in alike])
    spike = start_spike(_together([run.samples_bytes[: run.warmup_samples] for run in alike]), later)
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
    """Return the rise of the start above all later readings; None where it does not stand out."""
    if not len(first) or not len(later):
        return None
    rise = float(first.max() - later.max())
    return rise if rise > max(_SPIKE_DEVIATIONS * later.std(), _SPIKE_SHARE * later.mean()) else None


def split_of(data: StudyData, run: SoloRun) -> tuple[MemorySplitSection, ...]:
    """Split the memory of each phase of a run; empty where a size is not known."""
    resolved, adapter = data.resolved, data.adapters.get(run.rank)
    if resolved is None or adapter is None or resolved.dtype not in DTYPE_BYTES:
        return ()
    base = resolved.weight_bytes
    parts = []
    for phase, total in phase_bytes(run).items():
        activations = (run.activation_bytes or 0) if phase in ("forward", "backward") else 0
        known = run.base_bytes + _state_bytes(adapter) + activations
        parts.append(
            MemorySplitSection(
                phase=phase,
                total=total,
                program=run.base_bytes - base,
                base=base,
                adapter=adapter.parameter_bytes,
                gradient=adapter.gradient_bytes,
                optimizer=adapter.optimizer_bytes,
                activations=activations,
                rest=total - known,
            )
        )
    return tuple(parts)


def phase_bytes(run: SoloRun) -> dict[Phase, int]:
    """Return the memory of each phase that was measured."""
    found: Mapping[Phase, int | None] = {
        "forward": run.forward_peak_bytes,
        "backward": run.backward_peak_bytes,
        "optimizer": run.optimizer_peak_bytes,
        "evaluation": run.evaluation_peak_bytes,
        "held": run.held_bytes,
    }
    return {phase: total for phase, total in found.items() if total is not None}


def growth_sections(data: StudyData) -> tuple[GrowthSection, ...]:
    """Fit a straight line through the ranks for each phase; empty with fewer than two ranks."""
    last = {rank: heaviest_run(runs) for rank, runs in runs_by_rank(data.solo_runs).items() if rank in data.adapters}
    if len(last) < 2 or data.resolved is None:
        return ()
    phases = [set(phase_bytes(run)) for run in last.values()]
    low, high = (data.adapters[rank] for rank in (min(last), max(last)))  # on a line, with what all ranks have alike
    counted = (_state_bytes(high) - _state_bytes(low)) / (high.rank - low.rank)
    parts = []
    for phase in phase_bytes(next(iter(last.values()))):
        if all(phase in found for found in phases):
            above = [phase_bytes(run)[phase] - run.base_bytes for run in last.values()]
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
    return np.array([reading for run in samples for reading in run], dtype=np.float64)
