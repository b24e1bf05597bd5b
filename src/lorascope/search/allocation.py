"""What a time budget buys: a pure function of the study, its sizes and the pace of the machine."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lorascope.records import SoloRun
from lorascope.search.sequential import FIRST_SEEDS, sequential_seeds
from lorascope.search.solo_runs import pending_solo_runs
from lorascope.search.trials import planned_arms
from lorascope.search.work import Sizes, Work, planned_work, solo_work
from lorascope.spec.schema import StudySpec

REPORT_SECONDS = 10.0
"""Kept for loading adapters with PEFT and for the report."""
_ANALYSES = 0.15
_SOLO_RUNS = 0.15
"""Largest shares of the time for the analyses after training and for solo runs; what takes longer is left out."""
_SAMPLES, METRICS_SHARE = 0.03, 0.2
"""The same of held-out prompts that base and adapters answer, to be read and for metrics, and as much as that for
benchmarks: fewer are answered where it is short."""
_PLANNED = 0.85
"""Share of the rest that is planned for training: a machine may become slower."""

FEWEST_STEPS = {FIRST_SEEDS: 40, 2: 30, 1: 1}
"""Steps that each trial has to have before so many seeds are worth more than further steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds of a token that goes forward through the base."""

    training: float
    """In training, where each token counts twice."""
    evaluation: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """How a study spends its time budget."""

    steps: int
    """Of each trial; 0 where the time does not suffice."""
    left_out: tuple[str, ...]
    """What takes too large a share of the time."""
    least_seconds: int
    """The smallest budget that suffices, in whole minutes from an hour on."""


def allocate(
    spec: StudySpec, sizes: Sizes, pace: Pace, *, seconds: float, used: float, share: float = 1.0
) -> Allocation:
    """Divide a time budget between solo runs, training and what follows it.

    Args:
        spec: the study.
        sizes: of its parts; ``total_steps`` are those that it asks for.
        pace: of the machine.
        seconds: the budget.
        used: seconds of it that are used up.
        share: of the work that the busiest device has, where several train and evaluate at once, each at the pace.
    """
    end = end_seconds(spec, sizes, pace.evaluation, seconds=seconds)
    token_seconds = max(pace.training, pace.evaluation) * share
    least = training_cost(spec, sizes, steps=spec.max_steps or 1, seeds=1 if spec.until_decided else len(spec.seeds))
    free, needed = seconds - used - end, used + least * token_seconds / _PLANNED
    solo, left_out = plan_solo_runs(spec, sizes, pace, seconds=seconds, left=seconds - end - needed)
    work = _PLANNED * (free - solo) / token_seconds
    steps = 0
    if needed <= seconds - end:
        steps = choose_steps(spec, sizes, work=work) if spec.max_steps is None else spec.max_steps
    return Allocation(steps=steps, left_out=left_out, least_seconds=_least_budget(spec, sizes, pace, needed))


def plan_solo_runs(
    spec: StudySpec, sizes: Sizes, pace: Pace, *, seconds: float, left: float, made: Iterable[SoloRun] = ()
) -> tuple[float, tuple[str, ...]]:
    """Return the seconds that solo runs take, and what is left out: all of them where that is too much.

    Args:
        spec: the study.
        sizes: of its parts.
        pace: of the machine.
        seconds: the time budget.
        left: seconds of it that they may take at most.
        made: those that need not be made.
    """
    found = solo_work(spec, sizes, pending_solo_runs(spec, planned_arms(spec), made)) * pace.training
    return (found, ()) if found <= max(0.0, min(_SOLO_RUNS * seconds, left)) else (0.0, ("solo_runs",))


def _least_budget(spec: StudySpec, sizes: Sizes, pace: Pace, needed: float) -> int:
    """Return the smallest budget that holds so many seconds beside what it keeps for the end, which grows with it."""
    found, least = 0, math.ceil(needed)
    while found < least:
        found = least
        least = math.ceil(needed + end_seconds(spec, sizes, pace.evaluation, seconds=found))
    return found if found < 3600 else 60 * math.ceil(found / 60)


def end_seconds(spec: StudySpec, sizes: Sizes, token_seconds: float, *, seconds: float) -> float:
    """Return what a time budget keeps for the analyses after training and for the report.

    Args:
        spec: the study.
        sizes: of its parts.
        token_seconds: of a token that goes forward through the base, in evaluation.
        seconds: the budget.
    """
    work = planned_work(spec, sizes)
    tokens = math.fsum(work[name] for name in ("spectra", "forgetting_text", "truncation", "proof"))
    answers = min(work["samples"] * token_seconds, _SAMPLES * seconds)
    answers += min(work["metrics"] * token_seconds, METRICS_SHARE * seconds)
    answers += min(work["lm_eval"] * token_seconds, METRICS_SHARE * seconds)
    return REPORT_SECONDS + min(tokens * token_seconds, _ANALYSES * seconds) + answers


def affordable_steps(spec: StudySpec, sizes: Sizes, *, seconds: float, token_seconds: float) -> int:
    """Return the steps of a trial that can be trained in this time, at most those planned; 0 for none."""
    return choose_steps(spec, sizes, work=_PLANNED * max(0.0, seconds) / token_seconds)


def choose_steps(spec: StudySpec, sizes: Sizes, *, work: float) -> int:
    """Return how many steps each trial takes, so that training and evaluations are at most this work; 0 where not one.

    A sequential study has three seeds where each has steps enough, else two or one.

    Args:
        spec: the study.
        sizes: of its parts; ``total_steps`` are those of the epochs that it asks for.
        work: what may be done, in tokens that go forward through the base.
    """
    if not spec.until_decided:
        return _most_steps(spec, sizes, len(spec.seeds), work)
    found = {seeds: _most_steps(spec, sizes, seeds, work) for seeds in FEWEST_STEPS}
    enough = (steps for seeds, steps in found.items() if steps >= min(sizes.total_steps, FEWEST_STEPS[seeds]))
    return next(enough, 0)


def training_cost(spec: StudySpec, sizes: Sizes, *, steps: int, seeds: int) -> float:
    """Return the work of training so many seeds and of their evaluations."""
    work = work_of_seeds(spec, replace(sizes, total_steps=steps), seeds)
    return work["training"] + work["evaluation"]


def work_of_seeds(spec: StudySpec, sizes: Sizes, seeds: int) -> Work:
    """Return the work of a study that trains so many seeds."""
    return planned_work(
        spec.model_copy(update={"until_decided": False, "seeds": sequential_seeds(spec)[:seeds]}), sizes
    )


def _most_steps(spec: StudySpec, sizes: Sizes, seeds: int, work: float) -> int:
    """Return the most steps whose work fits, by bisection."""
    low, high = 0, sizes.total_steps
    while low < high:
        middle = (low + high + 1) // 2
        fits = training_cost(spec, sizes, steps=middle, seeds=seeds) <= work
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
