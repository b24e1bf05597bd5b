"""What each rank costs alone: short turns, before joint training and thrown away.

Turns alternate (ranks 8, 128, 256, then 256, 128, 8, ...), so that a machine that slows down or warms up favours none.
Every measured step is on the same batch, the one nearest to the mean number of tokens, so that what the times of a rank
differ by is the machine's doing. The heaviest batch comes once, as the warm-up of the last turn, for its peak.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from lorascope.analysis.cost.solo_runs import costs_by_rank
from lorascope.engine.oom import is_out_of_memory
from lorascope.measure.machine_rates import machine_rates
from lorascope.measure.sampler import SystemSampler
from lorascope.modeling.adapters.adapter import attach
from lorascope.records import CostRecord, GpuSample, MachineRates, SoloRun, TrialRecord
from lorascope.run.prepare import PreparedStudy
from lorascope.run.progress import Progress
from lorascope.run.sample_buffer import gpus_of
from lorascope.run.solo_run import SoloRunner, choose_batches
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore

_GPU_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Effort:
    turns: int
    steps: int
    """Measured steps of a turn, behind one of warm-up."""


_EFFORTS = {"quick": _Effort(turns=2, steps=1), "full": _Effort(turns=4, steps=5)}


def measure_costs(
    study: PreparedStudy,
    store: StudyStore,
    trials: Sequence[TrialRecord],
    *,
    progress: Progress,
    check_stop: Callable[[], None],
) -> None:
    """Take the turns that are not stored yet; a rank that memory runs out for is left without a measurement."""
    by_rank = {trial.rank: trial for trial in reversed(trials)}
    missing = _missing(store, study.spec, by_rank)
    if not missing:
        return
    effort = _EFFORTS[study.spec.cost]
    if store.read_one(MachineRates) is None:
        with _unless_out_of_memory(progress, "the machine's rates were measured"):
            store.put(machine_rates(study.device, study.frozen.model.dtype))
    batches = choose_batches(study, by_rank[min(by_rank)].seed)
    failed: set[int] = set()
    for rank, number in missing:
        if rank in failed:
            continue
        progress.phase(f"measuring what rank {rank} costs alone, turn {number + 1} of {effort.turns}")
        last = number == effort.turns - 1
        turn = SoloRunner(study=study, trial=by_rank[rank], number=number, batches=batches, check_stop=check_stop)
        failed.add(rank)
        with _unless_out_of_memory(progress, f"rank {rank} was measured alone"):
            with _gpu_sampling(store, study.device, rank):
                store.put(turn.take(effort.steps, last=last))
            failed.remove(rank)
        attach(study.frozen.layers, [])
        if last and rank not in failed:
            progress.cost(_cost_so_far(store, rank))


def _cost_so_far(store: StudyStore, rank: int) -> CostRecord:
    """Put a rank's turns together, its memory on the base of the ranks that are through."""
    turns = store.read(SoloRun)
    through = {turn.rank for turn in turns if turn.heaviest_tokens is not None} | {rank}
    return costs_by_rank([turn for turn in turns if turn.rank in through], ())[rank]


@contextmanager
def _unless_out_of_memory(progress: Progress, what: str) -> Iterator[None]:
    """Say that memory ran out, and go on without the measurement."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        progress.note(f"memory ran out while {what} ({error}); this is left out")


def is_measured(store: StudyStore, spec: StudySpec) -> bool:
    """Say whether all that the study asks of costs is stored."""
    return not _missing(store, spec, spec.ranks)


def _missing(store: StudyStore, spec: StudySpec, ranks: Iterable[int]) -> list[tuple[int, int]]:
    """List (rank, turn) in the order to take them; what an earlier version measured counts as quick."""
    if spec.cost == "off":
        return []
    known = {cost.rank for cost in store.read(CostRecord)} if spec.cost == "quick" else set()
    done = {(turn.rank, turn.turn) for turn in store.read(SoloRun)}
    order = turn_order(ranks, _EFFORTS[spec.cost].turns)
    return [(rank, turn) for rank, turn in order if (rank, turn) not in done and rank not in known]


@contextmanager
def _gpu_sampling(store: StudyStore, device: torch.device, rank: int) -> Iterator[None]:
    """Read the GPU, if there is one, more often than in the rest of a run."""
    gpus = gpus_of(device)
    if gpus is None:
        yield
        return
    found: list[GpuSample] = []
    with SystemSampler(_GPU_SECONDS, lambda _, samples: found.extend(samples), gpus):
        yield
    store.put_all([replace(sample, rank=rank) for sample in found])


def turn_order(ranks: Iterable[int], turns: int) -> list[tuple[int, int]]:
    """List (rank, turn): ascending ranks, then descending, and so on; every pair of turns has the same mean place."""
    ascending = sorted(ranks)
    return [(rank, turn) for turn in range(turns) for rank in (ascending[::-1] if turn % 2 else ascending)]
