"""Best alpha and learning rate of each arm, and the trial whose adapter stands for it: pure functions of records."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from lorascope.records import NOT_COMPARED, Arm, EvalRecord, Setting, TrialOutcome, TrialRecord


def last_finite(records: Sequence[EvalRecord]) -> EvalRecord | None:
    """Return the last evaluation after the first step that has a finite loss."""
    return next((record for record in reversed(records) if record.step > 0 and record.loss is not None), None)


def latest_losses(
    outcomes: Mapping[str, TrialOutcome], evaluations: Mapping[str, Sequence[EvalRecord]]
) -> dict[str, float]:
    """Return the last finite held-out loss, in nats a token, of each trial that trains or finished, by trial id.

    Args:
        outcomes: by trial id; a trial that has none has not ended.
        evaluations: of each trial in order, by trial id.
    """
    compared = [name for name in evaluations if name not in outcomes or outcomes[name].state not in NOT_COMPARED]
    last = {name: last_finite(evaluations[name]) for name in compared}
    return {name: record.loss for name, record in last.items() if record is not None and record.loss is not None}


def mean_losses(arm: Arm, trials: Iterable[TrialRecord], losses: Mapping[str, float]) -> dict[Setting, float]:
    """Return the mean loss over seeds of each setting of an arm.

    Only the settings with the most seeds are compared, so that seeds that failed are not hidden.
    """
    by_setting: dict[Setting, list[float]] = {}
    for trial in trials:
        if trial.arm == arm and trial.trial_id in losses:
            by_setting.setdefault(trial.setting, []).append(losses[trial.trial_id])
    most = max(map(len, by_setting.values()), default=0)
    return {setting: fmean(found) for setting, found in by_setting.items() if len(found) == most}


def best_setting(arm: Arm, trials: Iterable[TrialRecord], losses: Mapping[str, float]) -> Setting | None:
    """Return the arm's alpha and rate of the lowest mean loss, of equal ones the lowest; None without a loss."""
    means = mean_losses(arm, trials, losses)
    return min(means, key=lambda setting: (means[setting], setting), default=None)


def best_settings(trials: Sequence[TrialRecord], losses: Mapping[str, float]) -> dict[Arm, Setting]:
    """Return the best alpha and learning rate of each arm that has a loss, ranks of a set ascending."""
    sets = list(dict.fromkeys(trial.targets for trial in trials))
    arms = sorted({trial.arm for trial in trials}, key=lambda arm: (sets.index(arm[0]), arm[1]))
    found = {arm: best_setting(arm, trials, losses) for arm in arms}
    return {arm: setting for arm, setting in found.items() if setting is not None}


def representative_trials(
    trials: Iterable[TrialRecord], settings: Mapping[Arm, Setting], usable: Callable[[str], bool]
) -> dict[Arm, str]:
    """Return the trial that stands for each arm: the first usable one at its best setting, in seed order.

    Args:
        trials: in the order of the plan.
        settings: the best alpha and learning rate by arm, in the order of the result.
        usable: takes a trial id.
    """
    first: dict[Arm, str] = {}
    for trial in trials:
        if trial.setting == settings.get(trial.arm) and usable(trial.trial_id):
            first.setdefault(trial.arm, trial.trial_id)
    return {arm: first[arm] for arm in settings if arm in first}


def trials_at_best(
    trials: Iterable[TrialRecord], settings: Mapping[Arm, Setting], usable: Callable[[str], bool]
) -> dict[str, Arm]:
    """Return all usable trials at their arms' best settings, one a seed, with the arm of each; see above."""
    return {
        trial.trial_id: trial.arm
        for trial in trials
        if trial.setting == settings.get(trial.arm) and usable(trial.trial_id)
    }
