"""Time that a study may take: how many steps that buys, what is left of it, and what is kept for the end."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lorascope.data.row_order import step_tokens
from lorascope.errors import InputError, LorascopeError
from lorascope.records import BudgetRecord, ResolvedStudy, SoloRun, TrialOutcome
from lorascope.run.pace import measure_pace
from lorascope.run.prepare import PreparedStudy
from lorascope.search.allocation import (
    REPORT_SECONDS,
    Allocation,
    Pace,
    affordable_steps,
    allocate,
    end_seconds,
    plan_solo_runs,
)
from lorascope.search.groups import heaviest_share
from lorascope.search.rounds import pending_round
from lorascope.search.work import Sizes, sizes_of
from lorascope.spec.schema import StudySpec
from lorascope.text.numbers import format_seconds

_COUNTED_STEPS = 1000
"""First steps of a trial whose tokens are counted."""


class OutOfTime(LorascopeError):  # noqa: N818 - it says what happened; nothing is wrong
    """The time budget is used up while trials train; those that ended are kept."""


class TooSlow(LorascopeError):  # noqa: N818 - it says what happened; nothing is wrong
    """Training is so slow that it cannot end in time; fewer steps can.

    Args:
        token_seconds: the pace now, of all groups that train at once together, in seconds of a token that goes forward
            through the base.
    """

    def __init__(self, token_seconds: float) -> None:
        super().__init__("training cannot end within the time budget")
        self.token_seconds = token_seconds


@dataclass(kw_only=True)
class TimeBudget:
    """The clock of a study, over all its starts."""

    seconds: float = math.inf
    """What it may take; infinite without a budget."""
    end_seconds: float = 0.0
    """What is kept for the analyses after training and the report."""
    began: float = 0.0
    """``time.monotonic()`` when the run began, less what earlier runs took."""
    pace: Pace | None = None
    """Measured when the run began, of all devices together in training; None without a budget."""

    @property
    def used(self) -> float:
        """Seconds since the beginning, over all runs."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds until the budget ends."""
        return self.seconds - self.used

    @property
    def left_for_training(self) -> float:
        """Seconds until the end has to begin."""
        return self.left - self.end_seconds

    @property
    def left_for_report(self) -> float:
        """Seconds until the report has to be made."""
        return self.left - REPORT_SECONDS

    def allows(self, seconds: float) -> bool:
        """Return True where so many seconds are left before the report has to be made."""
        return self.left_for_report >= seconds


def spend_budget(
    study: PreparedStudy,
    before: ResolvedStudy | None,
    record: BudgetRecord | None,
    began: float,
    *,
    parallel: int = 1,
    solo_runs: Iterable[SoloRun] = (),
) -> tuple[PreparedStudy, TimeBudget, BudgetRecord | None]:
    """Measure the pace and choose the steps of a study with a time budget; without one it is as its fields say.

    Args:
        study: prepared.
        before: the run that is continued: its steps are kept.
        record: the budget's record of that run.
        began: ``time.monotonic()`` when this run began.
        parallel: devices on which groups train at once, each as fast as one does alone.
        solo_runs: those that are made.

    Raises:
        InputError: the time does not suffice for one step of each trial, or for the steps that the study asks for.
    """
    spec, seconds = study.spec, study.spec.budget_seconds
    if before is not None:
        study = replace(study, resolved=replace(study.resolved, total_steps=before.total_steps))
    used = record.used_seconds if record else 0.0
    if seconds is None:
        return study, TimeBudget(began=began - used), record
    sizes = study_sizes(study)
    clock = TimeBudget(seconds=seconds, began=began - used)
    pace = measure_pace(study, sizes)
    share = _busiest_share(study, sizes, parallel)
    if before is None:
        found = allocate(spec, sizes, pace, seconds=seconds, used=clock.used, share=share)
        if not found.steps:  # the machine may have been busy for a moment
            pace = measure_pace(study, sizes)
            found = allocate(spec, sizes, pace, seconds=seconds, used=clock.used, share=share)
        check_allocation(spec, found)
        study = replace(study, resolved=replace(study.resolved, total_steps=found.steps))
        left_out = found.left_out
    clock.pace = replace(pace, training=share * pace.training)
    clock.end_seconds = end_seconds(spec, sizes, pace.evaluation, seconds=seconds)
    if before is not None:
        left = clock.left_for_training
        _, left_out = plan_solo_runs(spec, sizes, pace, seconds=seconds, left=left, made=solo_runs)
        left_out += tuple(name for name in (record.left_out if record else ()) if name != "solo_runs")
    if before is None or record is None:
        record = BudgetRecord(
            seconds=seconds,
            used_seconds=clock.used,
            training_pace=pace.training,
            evaluation_pace=pace.evaluation,
            steps=study.resolved.total_steps,
            left_out=(),
        )
    return study, clock, replace(record, seconds=seconds, left_out=left_out)


def _busiest_share(study: PreparedStudy, sizes: Sizes, devices: int) -> float:
    """Return the share of the first round's work that the busiest device has."""
    first = pending_round(study.spec, {}, {}, study.resolved.total_steps)
    assert first is not None
    return heaviest_share(first, devices, sizes.train_step)


def check_allocation(spec: StudySpec, found: Allocation, *, pace: str = "measured") -> None:
    """Raise InputError where a time budget buys no step, or fewer than the study asks for."""
    if found.steps:
        return
    fewest = spec.max_steps or 1
    raise InputError(
        f"time_budget {spec.time_budget} is too short: {'one step' if fewest == 1 else f'{fewest} steps'} of each rank "
        f"at its learning rates, with evaluations, need about {format_seconds(math.ceil(found.least_seconds))} at the "
        f"{pace} pace",
        remedy="give more time, fewer ranks or learning rates, smaller batches or shorter rows"
        + (", or fewer max_steps" if spec.max_steps else ""),
    )


def fewer_steps(study: PreparedStudy, clock: TimeBudget, token_seconds: float) -> int:
    """Return the steps of a trial that can be trained in the time that is left, at most those planned; 0 for none.

    Where the end is near, they may take half of its time.

    Args:
        study: prepared.
        clock: of the study.
        token_seconds: the pace, in seconds of a token that goes forward through the base.
    """
    seconds = max(clock.left_for_training, clock.left_for_report / 2)
    return affordable_steps(study.spec, study_sizes(study), seconds=seconds, token_seconds=token_seconds)


def study_sizes(study: PreparedStudy) -> Sizes:
    """Return the sizes that the study's work follows from."""
    spec, text, base, train = study.spec, study.forgetting_text, study.resolved.base_parameters, study.splits.train
    steps = min(study.resolved.total_steps, _COUNTED_STEPS)
    return sizes_of(
        spec,
        study.resolved,
        step_tokens=step_tokens(spec, train.n_tokens, seed=spec.seeds[0], steps=steps),
        text_tokens=float(sum(window.n_tokens for window in text.windows)) if text else 0.0,
        adapter_share={
            targets: sum(sum(layer.features) for layer in study.layers_of(targets).values()) / base
            for targets in study.target_sets
        },
        harness=tuple(one.record for one in study.benchmarks),
    )


def is_out_of_time(outcome: TrialOutcome) -> bool:
    """Return True for a trial that a time budget ended."""
    return outcome.message is not None and outcome.message.code == "trial.no_time"


def ended_in_vain(outcomes: Iterable[TrialOutcome]) -> bool:
    """Return True where a time budget ended trials before any finished: with a larger one they go on."""
    found = list(outcomes)
    return any(map(is_out_of_time, found)) and all(outcome.state != "finished" for outcome in found)
