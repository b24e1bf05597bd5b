"""What a planned study could show, and the time that it takes to show it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

from lorascope.analysis.verdict.chance import WORSE, Chance, Stage, planned_stages, verdict_chance
from lorascope.analysis.verdict.decide import LEAST
from lorascope.analysis.verdict.next_look import Prices
from lorascope.costmodel.noise import ASSUMED, Noise, find_noise
from lorascope.costmodel.plan import START_SECONDS, StudyPlan, plan_study
from lorascope.costmodel.workload import Workload
from lorascope.message import Message
from lorascope.run.time_budget import check_allocation
from lorascope.search.allocation import Allocation, allocate, end_seconds, work_of_seeds
from lorascope.search.sequential import first_seeds
from lorascope.search.solo_runs import pending_solo_runs
from lorascope.search.steps import evaluation_steps
from lorascope.search.trials import planned_arms
from lorascope.search.work import solo_work
from lorascope.spec.schema import StudySpec

_NOISE = tuple(field.name for field in fields(Noise))


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a study could show."""

    stages: Sequence[Stage]
    """The looks that it can take; one for a study that is looked at once."""
    steps: int
    """Of each trial."""
    chance: Chance
    noise: Noise
    is_assumed: bool
    """False where an earlier study of the same model and data set showed the noise."""
    rank: int
    """The smallest, which is the worse one in the second case."""
    worse_by: float
    """In nats a token."""

    @property
    def has_enough(self) -> bool:
        """True with as many steps and held-out rows as any verdict takes."""
        return min(self.steps, self.stages[0].rows) >= LEAST

    def facts(self) -> dict[str, Any]:
        """Return the object that ``--json`` writes."""
        first, last = self.stages[0], self.stages[-1]
        return {
            "first_look": {"seeds": first.seeds, "rows": first.rows},
            "last_look": {"seeds": last.seeds, "rows": last.rows},
            "smallest_difference": self.chance.smallest_difference,
            "chance_if_equal": self.chance.if_equal,
            "chance_if_worse": self.chance.if_worse,
            "worse_by": self.worse_by,
            "noise": {"assumed": self.is_assumed, **{name: getattr(self.noise, name) for name in _NOISE}},
        }


def plan_with_forecast(spec: StudySpec) -> tuple[StudyPlan, Forecast | None]:
    """Plan a study with the steps that its time budget buys, and say what it could show.

    There is no forecast for one rank and for rows that are not known.

    Raises:
        InputError: as ``plan_study``; the time budget is too short.
    """

    def choose(work: Workload) -> int:
        found = _allocation(spec, work)
        check_allocation(spec, found, pace="predicted")
        return found.steps

    plan = plan_study(spec, None if spec.budget_seconds is None else choose)
    work = plan.workload
    is_timed = spec.until_decided or spec.budget_seconds is not None
    if work is None:
        notes = (*plan.notes, Message("plan.no_forecast")) if is_timed else plan.notes
        return replace(plan, notes=notes), None
    noise, is_assumed = _noise(spec, work)
    if is_timed:
        plan, stages = _with_time(spec, plan, work, noise)
    else:
        stages = [Stage(seeds=len(spec.seeds), rows=work.sizes.eval_examples)]
    if len(spec.ranks) == 1:
        return plan, None
    chance = verdict_chance(
        len(spec.ranks), stages, steps=work.sizes.total_steps, tolerance=spec.tolerance, noise=noise
    )
    return plan, Forecast(
        stages=stages,
        steps=work.sizes.total_steps,
        chance=chance,
        noise=noise,
        is_assumed=is_assumed,
        rank=min(spec.ranks),
        worse_by=WORSE * spec.tolerance,
    )


def _with_time(spec: StudySpec, plan: StudyPlan, work: Workload, noise: Noise) -> tuple[StudyPlan, list[Stage]]:
    """Return the looks that a study can take in its time, and the plan with that time."""
    sizes, pace, seconds = work.sizes, work.pace, spec.budget_seconds or math.inf
    other = START_SECONDS + end_seconds(spec, sizes, pace.evaluation, seconds=seconds)
    if spec.budget_seconds is None or not _allocation(spec, work).left_out:
        other += solo_work(spec, sizes, pending_solo_runs(spec, planned_arms(spec), [])) * pace.training
    counts = range(len(first_seeds(spec)), 0, -1) if spec.until_decided else (len(spec.seeds),)
    for seeds in counts:
        done = work_of_seeds(spec, sizes, seeds)
        training, evaluation = done["training"] * pace.training, done["evaluation"] * pace.evaluation
        total = other + training + evaluation
        if total <= seconds:
            break
    stages = [Stage(seeds=seeds, rows=sizes.eval_examples)]
    if spec.until_decided:
        stages = planned_stages(
            len(spec.ranks),
            stages[0],
            rows=sizes.eval_examples + work.further_rows,
            prices=_prices(spec, work),
            noise=noise,
            seconds_left=seconds - total,
        )
    total += stages[-1].seconds
    return replace(plan, training_seconds=training, evaluation_seconds=evaluation, total_seconds=total), stages


def _allocation(spec: StudySpec, work: Workload) -> Allocation:
    assert spec.budget_seconds is not None
    return allocate(spec, work.sizes, work.pace, seconds=spec.budget_seconds, used=START_SECONDS)


def _noise(spec: StudySpec, work: Workload) -> tuple[Noise, bool]:
    """Return the noise on the study's rows, and True where it is assumed."""
    known = find_noise(spec)
    return (known or ASSUMED).at(work.eval_target_tokens), known is None


def _prices(spec: StudySpec, work: Workload) -> Prices:
    """Return what further data cost, each a mean over the ranks."""
    sizes, arms = work.sizes, planned_arms(spec)
    evaluation = fmean(map(sizes.evaluation, arms))
    trial = sizes.total_steps * fmean(map(sizes.train_step, arms))
    return Prices(
        row=evaluation / sizes.eval_examples,
        trial=trial + evaluation * (len(evaluation_steps(spec, sizes.total_steps)) - 1),
        token_seconds=max(work.pace.training, work.pace.evaluation),
    )
