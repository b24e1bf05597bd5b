"""Rounds of a learning-rate search: the grid, rates beyond an edge of it, then the other seeds.

The next round follows from the records alone, so that a study that was stopped takes the same course.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorascope.records import SETTLED, Arm, EvalRecord, LookRecord, Setting, TrialOutcome, TrialRecord
from lorascope.search.best import best_setting, latest_losses, mean_losses
from lorascope.search.halving import Rival, Rungs
from lorascope.search.rates import next_rate
from lorascope.search.sequential import first_seeds, seed_rounds
from lorascope.search.steps import exits_early, rung_steps
from lorascope.search.trials import plan_trial, plan_trials, planned_arms, planned_rates
from lorascope.spec.schema import StudySpec

TIE_NATS = 0.01
"""Rates that end this close to a rank's best at the first seed are trained at the other seeds too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRound:
    """Trials that are trained before the search goes on."""

    number: int
    """Counted from 0."""
    trials: tuple[TrialRecord, ...]
    rungs: Rungs
    base_nats: tuple[float, ...] | None
    """Nats of each held-out row before the first step, where an earlier round has them."""


def pending_round(
    spec: StudySpec,
    outcomes: Mapping[str, TrialOutcome],
    evaluations: Mapping[str, Sequence[EvalRecord]],
    total_steps: int,
    looks: Sequence[LookRecord] = (),
) -> SearchRound | None:
    """Return the first round that has not ended; None when the search is complete.

    Args:
        spec: the study.
        outcomes: by trial id.
        evaluations: of each trial in order, by trial id.
        total_steps: optimizer steps of a trial.
        looks: those that a sequential study has taken.
    """
    losses = latest_losses(outcomes, evaluations)
    settled = {name for name, outcome in outcomes.items() if outcome.state in SETTLED}
    before: list[TrialRecord] = []
    number, asked = 0, seed_rounds(spec, looks)
    while trials := next_trials(spec, before, losses) or next(asked, ()):
        if not all(trial.trial_id in settled for trial in trials):
            break
        before += trials
        number += 1
    else:
        return None
    rungs = Rungs()
    if {trial.seed for trial in trials} == {spec.seeds[0]}:
        rungs = Rungs(
            steps=rung_steps(spec, total_steps),
            rivals=_rivals(before, losses, evaluations),
            falling=spec.lr_scheduler_type != "constant",
        )
    base = next((record for trial in before for record in evaluations.get(trial.trial_id, ())[:1]), None)
    return SearchRound(number=number, trials=trials, rungs=rungs, base_nats=base.example_nats if base else None)


def next_trials(spec: StudySpec, before: Sequence[TrialRecord], losses: Mapping[str, float]) -> tuple[TrialRecord, ...]:
    """Return the trials of the next round; none when the search is complete.

    Args:
        spec: the study.
        before: the trials of the rounds before, all of which ended; none before the first.
        losses: the final held-out losses, in nats a token, of those that finished, by trial id.
    """
    seeds = spec.seeds[:1] if exits_early(spec) or spec.until_decided else spec.seeds
    if not before:
        return tuple(trial for trial in plan_trials(spec) if trial.seed in seeds)
    seen = {trial.seed for trial in before}
    if seen <= set(seeds):
        wider = [
            plan_trial(spec, arm, setting=setting, seed=seed)
            for arm in planned_arms(spec)
            if (setting := _beyond_edge(spec, arm, before, losses)) is not None
            for seed in seeds
        ]
        if wider:
            return tuple(wider)
    known = {trial.trial_id for trial in before}
    later = first_seeds(spec)
    if spec.until_decided:  # one seed after the other, as the time may end before the last
        later = tuple(seed for seed in later if seed not in seen)[:1]
    at_all_seeds = (
        plan_trial(spec, arm, setting=setting, seed=seed)
        for arm in planned_arms(spec)
        for setting in _settings_left(arm, before, losses)
        for seed in later
    )
    return tuple(trial for trial in at_all_seeds if trial.trial_id not in known)


def _beyond_edge(
    spec: StudySpec, arm: Arm, before: Sequence[TrialRecord], losses: Mapping[str, float]
) -> Setting | None:
    """Return the next rate beyond the best one where that lies at an edge of its alpha's grid and more are allowed."""
    found = best_setting(arm, before, losses)
    if found is None:
        return None
    alpha, best = found
    grid = planned_rates(spec, arm[1], alpha)
    tried = {trial.learning_rate for trial in before if (trial.arm, trial.lora_alpha) == (arm, alpha)}
    if len(grid) < 2:
        return None
    side: Literal["above", "below"]
    if best == max(tried):
        side, added = "above", sum(rate > max(grid) for rate in tried)
    elif best == min(tried):
        side, added = "below", sum(rate < min(grid) for rate in tried)
    else:
        return None
    rate = next_rate(tried, side)
    usable = 0 < rate < math.inf and rate not in tried
    return (alpha, rate) if usable and added < spec.max_grid_extensions else None


def _settings_left(arm: Arm, before: Sequence[TrialRecord], losses: Mapping[str, float]) -> list[Setting]:
    means = mean_losses(arm, before, losses)
    return [setting for setting, loss in means.items() if loss <= min(means.values()) + TIE_NATS]


def _rivals(
    before: Sequence[TrialRecord], losses: Mapping[str, float], evaluations: Mapping[str, Sequence[EvalRecord]]
) -> dict[Arm, Rival]:
    finished = [trial for trial in before if trial.trial_id in losses]
    rivals = {}
    for arm in {trial.arm for trial in finished}:
        best = min((trial for trial in finished if trial.arm == arm), key=lambda trial: losses[trial.trial_id])
        curve = {record.step: loss for record in evaluations[best.trial_id] if (loss := record.loss) is not None}
        rivals[arm] = Rival(setting=best.setting, losses=curve)
    return rivals
