"""Time that a study may take: how many steps that buys, what is left of it, and what is kept for the end."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorascope.data.row_order import step_tokens
from lorascope.errors import InputError, LorascopeError
from lorascope.records import BudgetRecord, ResolvedStudy, TrialRecord
from lorascope.run.pace import Pace, measure_pace
from lorascope.run.prepare import PreparedStudy
from lorascope.search.allocation import choose_steps, training_cost
from lorascope.search.solo_runs import pending_solo_runs
from lorascope.search.trials import planned_arms
from lorascope.search.work import Sizes, planned_work, round_work, sizes_of, solo_work
from lorascope.spec.schema import StudySpec
from lorascope.text.numbers import format_seconds

REPORT_SECONDS = 10.0
"""Kept for loading adapters with PEFT and for the report."""
_ANALYSES = 0.15
_SOLO_RUNS = 0.15
"""Largest shares of the time for the analyses after training and for solo runs; what takes longer is left out."""
_COUNTED_STEPS = 1000
"""First steps of a trial whose tokens are counted."""
_PLANNED = 0.85
"""Share of the rest that is planned for training: a machine may become slower."""


class OutOfTime(LorascopeError):  # noqa: N818 - it says what happened; nothing is wrong
    """The time budget is used up while trials train; those that ended are kept."""


class TooSlow(LorascopeError):  # noqa: N818 - it says what happened; nothing is wrong
    """Training is so slow that it cannot end in time; fewer steps can.

    Args:
        token_seconds: the pace now, in seconds of a token that goes forward through the base.
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
    evaluation_pace: float = 0.0
    """Seconds of a token that goes forward through one adapter."""

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

    def allows_analysis(self, tokens: float) -> bool:
        """Return True where so many tokens can be evaluated before the report has to be made."""
        return self.left - REPORT_SECONDS >= tokens * self.evaluation_pace

    def check(self) -> None:
        """Raise OutOfTime where the end has to begin."""
        if self.left_for_training <= 0:
            raise OutOfTime("the time budget is used up")


def spend_budget(
    study: PreparedStudy, before: ResolvedStudy | None, record: BudgetRecord | None, began: float
) -> tuple[PreparedStudy, TimeBudget, BudgetRecord | None]:
    """Measure the pace and choose the steps of a study with a time budget; without one it is as its fields say.

    Args:
        study: prepared.
        before: the run that is continued: its steps are kept.
        record: the budget's record of that run.
        began: ``time.monotonic()`` when this run began.

    Raises:
        InputError: the time does not suffice for one step of each trial, or for the steps that the study asks for.
    """
    spec, seconds = study.spec, study.spec.budget_seconds
    if before is not None:
        study = replace(study, resolved=replace(study.resolved, total_steps=before.total_steps))
    if seconds is None:
        return study, TimeBudget(began=began), None
    sizes = study_sizes(study)
    pace = measure_pace(study, sizes)
    clock = TimeBudget(
        seconds=seconds,
        end_seconds=REPORT_SECONDS + min(_analysis_seconds(spec, sizes, pace), _ANALYSES * seconds),
        began=began - (record.used_seconds if record else 0.0),
        evaluation_pace=pace.evaluation,
    )
    if record is None:
        solo = solo_work(spec, sizes, pending_solo_runs(spec, planned_arms(spec), [])) * pace.training
        left_out = () if solo <= _SOLO_RUNS * seconds else ("solo_runs",)
        free = clock.left_for_training - (0.0 if left_out else solo)
        steps = study.resolved.total_steps
        if before is None:
            steps = _choose(spec, sizes, clock, free, max(pace.training, pace.evaluation))
            study = replace(study, resolved=replace(study.resolved, total_steps=steps))
        record = BudgetRecord(
            seconds=seconds,
            used_seconds=clock.used,
            training_pace=pace.training,
            evaluation_pace=pace.evaluation,
            steps=steps,
            left_out=left_out,
        )
    return study, clock, replace(record, seconds=seconds)


def _choose(spec: StudySpec, sizes: Sizes, clock: TimeBudget, free_seconds: float, token_seconds: float) -> int:
    work, fewest = _PLANNED * free_seconds / token_seconds, spec.max_steps or 1
    chosen = choose_steps(spec, sizes, work=work) if spec.max_steps is None else spec.max_steps
    least = training_cost(spec, sizes, steps=fewest, seeds=1 if spec.until_decided else len(spec.seeds))
    if chosen and least <= work:
        return chosen
    needed = clock.used + clock.end_seconds + least * token_seconds / _PLANNED
    raise InputError(
        f"time_budget {spec.time_budget} is too short: {'one step' if fewest == 1 else f'{fewest} steps'} of each rank "
        f"at its learning rates, with evaluations, need about {format_seconds(math.ceil(needed))} at the measured pace",
        remedy="give more time, fewer ranks or learning rates, smaller batches or shorter rows"
        + (", or fewer max_steps" if spec.max_steps else ""),
    )


def fewer_steps(study: PreparedStudy, clock: TimeBudget, token_seconds: float) -> int:
    """Return the steps of a trial that can be trained in the time that is left, at most those planned; 0 for none.

    Args:
        study: prepared.
        clock: of the study.
        token_seconds: the pace, in seconds of a token that goes forward through the base.
    """
    work = _PLANNED * max(0.0, clock.left_for_training) / token_seconds
    return choose_steps(study.spec, study_sizes(study), work=work)


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
    )


def _analysis_seconds(spec: StudySpec, sizes: Sizes, pace: Pace) -> float:
    work = planned_work(spec, sizes)
    return math.fsum(work[name] for name in ("spectra", "forgetting_text", "truncation", "proof")) * pace.evaluation


def round_seconds(study: PreparedStudy, trials: Sequence[TrialRecord], token_seconds: float) -> float:
    """Return what trials take to their last step.

    Args:
        study: prepared.
        trials: they begin together.
        token_seconds: measured seconds of a token that goes forward through the base.
    """
    work = round_work(study.spec, study_sizes(study), trials)
    return token_seconds * (work["training"] + work["evaluation"])
