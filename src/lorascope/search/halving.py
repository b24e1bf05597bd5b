"""Successive halving of alphas and learning rates at rungs: a pure function of losses.

After Jamieson and Talwalkar (2016), applied to the settings of each arm, a rank in a set of target modules. Arms are
never compared here, as the advantage of a larger rank shows late.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from lorascope.message import Message
from lorascope.records import Arm, Setting, TrialRecord

MARGIN_NATS = 0.06
"""A higher rate this close to the best also stays, as it catches up when learning rates fall: in a real study one that
was behind by 0.045 at three eighths was ahead in the end (docs/decisions, early exit)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """An arm's best setting of earlier rounds."""

    setting: Setting
    losses: Mapping[int, float]
    """Held-out losses by step, nats a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rungs:
    """Steps at which the settings of an arm are compared with each other, and with an earlier round's best."""

    steps: tuple[int, ...] = ()
    rivals: Mapping[Arm, Rival] = field(default_factory=dict)
    falling: bool = True
    """Whether learning rates fall towards the end. Where they do not, a lower rate may also stay near the best."""
    others: tuple[TrialRecord, ...] = ()
    """Trials of the round that train at another time, for want of memory or after a stop."""
    others_losses: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Their held-out losses so far, in nats a token, by step and trial id."""

    def trials_to_stop(
        self, step: int, trials: Sequence[TrialRecord], losses: Mapping[str, float]
    ) -> dict[str, Message]:
        """Return the trials that stop after ``step``, each with its reason.

        Of n settings of an arm, the better half stays at the first rung, a quarter at the second (rounded up), and one
        more where it is within the margin of the best. The seeds of a setting are judged together, by their mean.

        Args:
            step: the rung.
            trials: those that train together, also where they have left.
            losses: held-out losses, in nats a token, of those that still train.
        """
        if step not in self.steps:
            return {}
        known = {**losses, **self.others_losses.get(step, {})}
        planned = [*trials, *self.others]
        found: dict[str, Message] = {}
        for arm in {trial.arm for trial in planned}:
            found |= self._behind(step, [trial for trial in planned if trial.arm == arm], known)
        return found

    def _behind(self, step: int, trials: Sequence[TrialRecord], losses: Mapping[str, float]) -> dict[str, Message]:
        """Return the trials of one arm that stop."""
        settings = {trial.setting for trial in trials}
        there = [trial for trial in trials if trial.trial_id in losses]
        means = {
            setting: fmean(losses[trial.trial_id] for trial in there if trial.setting == setting)
            for setting in {trial.setting for trial in there}
        }
        rival = self.rivals.get(trials[0].arm)
        if rival is not None and step in rival.losses:
            settings.add(rival.setting)
            means[rival.setting] = rival.losses[step]
        stay = self._staying(means, math.ceil(len(settings) / 2 ** (1 + self.steps.index(step))))
        lowest = min(means.values(), default=math.nan)
        return {
            trial.trial_id: Message("trial.behind", loss=means[trial.setting], step=step, lowest=lowest)
            for trial in there
            if trial.setting not in stay
        }

    def _staying(self, means: Mapping[Setting, float], n_stay: int) -> set[Setting]:
        order = sorted(means, key=means.__getitem__)
        close = [
            setting
            for setting in order[n_stay:]
            if means[setting] <= means[order[0]] + MARGIN_NATS
            and (not self.falling or _speed(setting) > _speed(order[0]))
        ]
        return {*order[:n_stay], *close[:1]}


def _speed(setting: Setting) -> float:
    """Return alpha * rate^2: at one rank, what a step changes B A by is proportional to it (``search.rates``)."""
    alpha, rate = setting
    return alpha * rate * rate
