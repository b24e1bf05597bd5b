"""Which learning rates go on at a rung: a pure function of losses.

Successive halving (Jamieson and Talwalkar, 2016) along the learning rates of each rank by itself. Ranks are never
compared here: what a larger rank is good for shows late.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from lorascope.records import TrialRecord

MARGIN_NATS = 0.01
"""A rate this close to the last one that stays may stay as well: the order of such two often turns until the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rungs:
    """Where the trials of a pack are compared with each other, and with what was trained before."""

    steps: tuple[int, ...] = ()
    rivals: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    """By rank, the held-out losses by step of its best learning rate of an earlier pack."""

    def leavers(self, step: int, planned: Sequence[TrialRecord], losses: Mapping[str, float]) -> dict[str, str]:
        """Return the trials that stop after ``step``, each with its reason.

        Of n rates of a rank, the better half stays at the first rung, a quarter at the second (rounded up), and one
        more where it is within the margin. The seeds of a rate are judged together, by their mean.

        Args:
            step: the rung.
            planned: all trials of the pack, also those that have left.
            losses: held-out losses, in nats a token, of the trials that are still there.
        """
        if step not in self.steps:
            return {}
        found: dict[str, str] = {}
        for rank in {trial.rank for trial in planned}:
            found |= self._leavers_of(rank, step, [trial for trial in planned if trial.rank == rank], losses)
        return found

    def _leavers_of(
        self, rank: int, step: int, planned: Sequence[TrialRecord], losses: Mapping[str, float]
    ) -> dict[str, str]:
        rates = {trial.learning_rate for trial in planned}
        there = [trial for trial in planned if trial.trial_id in losses]
        means = {
            rate: fmean(losses[trial.trial_id] for trial in there if trial.learning_rate == rate)
            for rate in {trial.learning_rate for trial in there}
        }
        rival = self.rivals.get(rank, {}).get(step)
        contenders = sorted([*means.values(), *([] if rival is None else [rival])])
        n_rates = len(rates) + (rival is not None)
        n_stay = math.ceil(n_rates / 2 ** (1 + self.steps.index(step)))
        if len(contenders) <= n_stay:
            return {}
        limit = contenders[n_stay - 1]
        if contenders[n_stay] <= limit + MARGIN_NATS:
            limit = contenders[n_stay]
        reason = f"held-out loss {{:.4f}} after step {step}, the best learning rate's {contenders[0]:.4f}"
        return {
            trial.trial_id: reason.format(means[trial.learning_rate])
            for trial in there
            if means[trial.learning_rate] > limit
        }
