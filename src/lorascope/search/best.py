"""Best alpha and learning rate of each rank, and the trial whose adapter stands for it: pure functions of records."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from lorascope.records import NOT_COMPARED, EvalRecord, Setting, TrialOutcome, TrialRecord


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


def mean_losses(rank: int, trials: Iterable[TrialRecord], losses: Mapping[str, float]) -> dict[Setting, float]:
    """Return the mean loss over seeds of each setting of a rank.

    Only the settings with the most seeds are compared, so that seeds that failed are not hidden.
    """
    by_setting: dict[Setting, list[float]] = {}
    for trial in trials:
        if trial.rank == rank and trial.trial_id in losses:
            by_setting.setdefault(trial.setting, []).append(losses[trial.trial_id])
    most = max(map(len, by_setting.values()), default=0)
    return {setting: fmean(found) for setting, found in by_setting.items() if len(found) == most}


def best_setting(rank: int, trials: Iterable[TrialRecord], losses: Mapping[str, float]) -> Setting | None:
    """Return the rank's alpha and rate of the lowest mean loss, of equal ones the lowest; None without a loss."""
    means = mean_losses(rank, trials, losses)
    return min(means, key=lambda setting: (means[setting], setting), default=None)


def best_settings(trials: Sequence[TrialRecord], losses: Mapping[str, float]) -> dict[int, Setting]:
    """Return the best alpha and learning rate of each rank that has a loss, ranks ascending."""
    found = {rank: best_setting(rank, trials, losses) for rank in sorted({trial.rank for trial in trials})}
    return {rank: setting for rank, setting in found.items() if setting is not None}


def representative_trials(
    trials: Iterable[TrialRecord], settings: Mapping[int, Setting], usable: Callable[[str], bool]
) -> dict[int, str]:
    """Return the trial that stands for each rank: the first usable one at its best setting, in seed order.

    Args:
        trials: in the order of the plan.
        settings: the best alpha and learning rate by rank, ranks in the order of the result.
        usable: takes a trial id.
    """
    first: dict[int, str] = {}
    for trial in trials:
        if trial.setting == settings.get(trial.rank) and usable(trial.trial_id):
            first.setdefault(trial.rank, trial.trial_id)
    return {rank: first[rank] for rank in settings if rank in first}
