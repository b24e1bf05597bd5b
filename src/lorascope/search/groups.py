"""Trial groups of a search round: which trials train together where there are several workers."""

from collections.abc import Callable, Sequence

from lorascope.records import Arm, TrialRecord
from lorascope.search.rounds import SearchRound

TrialGroups = tuple[tuple[TrialRecord, ...], ...]


def split_round(search_round: SearchRound, count: int, work: Callable[[Arm], float]) -> TrialGroups:
    """Split the trials of a round into at most ``count`` groups of about equal work.

    Settings of an arm are compared with each other at rungs, so that where a round has rungs an arm stays whole: what a
    group learns then depends on no other group, nor on when that trains. Without rungs every trial can go anywhere.

    Args:
        search_round: the round.
        count: most groups.
        work: of a step of a trial, by its arm, in any unit.

    Returns:
        The groups, each with its trials in the order of the round; the same for equal arguments, so that a study that
        was stopped goes on with them.
    """
    units = _whole_arms(search_round.trials) if search_round.rungs.steps else [[trial] for trial in search_round.trials]

    def weight(trials: Sequence[TrialRecord]) -> float:
        return sum(work(trial.arm) for trial in trials)

    groups: list[list[TrialRecord]] = [[] for _ in range(min(count, len(units)))]
    for unit in sorted(units, key=weight, reverse=True):
        min(groups, key=weight).extend(unit)
    place = {trial.trial_id: number for number, trial in enumerate(search_round.trials)}
    ordered = (tuple(sorted(group, key=lambda trial: place[trial.trial_id])) for group in groups)
    return tuple(sorted(ordered, key=lambda group: place[group[0].trial_id]))


def heaviest_share(search_round: SearchRound, count: int, work: Callable[[Arm], float]) -> float:
    """Return the share of a round's work that the heaviest of at most ``count`` groups has; see ``split_round``."""
    loads = [sum(work(trial.arm) for trial in group) for group in split_round(search_round, count, work)]
    return max(loads) / sum(loads)


def _whole_arms(trials: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    arms: dict[Arm, list[TrialRecord]] = {}
    for trial in trials:
        arms.setdefault(trial.arm, []).append(trial)
    return list(arms.values())
