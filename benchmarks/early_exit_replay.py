"""What early exit would have saved and chosen, replayed on the records of a study that trained its whole grid.

    python benchmarks/early_exit_replay.py STUDY

The study has three or more learning rates, ``early_exit: false`` and evaluations at the steps of the rungs, as with
``eval_steps`` an eighth of the steps. Each replayed grid draws its held-out rows anew, with replacement, and for every
rank which of the study's seeds stand in each place. The decisions are those of the program itself.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.analysis import StudyData, load_study
from lorascope.errors import InputError
from lorascope.records import TrialRecord
from lorascope.search.best import mean_losses
from lorascope.search.halving import Rungs
from lorascope.search.rounds import next_trials
from lorascope.search.steps import evaluation_steps, rung_steps
from lorascope.search.trials import plan_trial
from lorascope.spec.schema import StudySpec

CLOSE_NATS = 0.002
"""A rate whose final held-out loss is this close to the best one's is as good a choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One grid."""

    share: float
    """Tokens passed, divided by those of the whole grid."""
    same_rates: bool
    """Whether every rank's chosen rate is the one that the whole grid chooses."""
    excess_nats: Mapping[int, float]
    """By rank, the final held-out loss of the chosen rate above that of the best one, as the whole grid has it."""


class Exhaustive:
    """The records of a grid that was trained to its end."""

    def __init__(self, data: StudyData) -> None:
        if data.resolved is None or data.resolved.eval_tokens is None:
            raise InputError("the study has no records to replay", remedy="run it to its end with this version")
        self.spec: StudySpec = data.spec.model_copy(update={"early_exit": True, "max_grid_extensions": 0})
        self.total_steps = data.resolved.total_steps
        self.eval_tokens = data.resolved.eval_tokens
        self.rungs = Rungs(
            steps=rung_steps(self.spec, self.total_steps), falling=self.spec.lr_scheduler_type != "constant"
        )
        self.nats: dict[str, dict[int, NDArray[np.float64]]] = {}
        self.tokens: dict[str, list[int]] = {}
        for trial in data.trials:
            records = data.evaluations[trial.trial_id]
            self.nats[trial.trial_id] = {record.step: np.array(record.example_nats) for record in records}
            self.tokens[trial.trial_id] = data.steps[trial.trial_id].tokens.tolist()
            self.targets = np.array(records[0].example_target_tokens)
        self._check(data)

    def _check(self, data: StudyData) -> None:
        if not self.rungs.steps:
            raise InputError("no learning rate could leave early", remedy="give a study of three rates or more")
        wanted = {*self.rungs.steps, self.total_steps}
        for trial in data.trials:
            outcome = data.outcomes[trial.trial_id].state
            if outcome not in ("finished", "diverged") or (
                outcome == "finished" and not wanted <= self.nats[trial.trial_id].keys()
            ):
                raise InputError(
                    f"trial {trial.trial_id} ({outcome}) lacks evaluations after steps {sorted(wanted)}",
                    remedy="run the study with --no-early-exit and --eval-steps an eighth of its steps",
                )

    def replay(self, generator: np.random.Generator, eval_steps: int | None) -> Replayed:
        """Draw a grid, let the program decide, and compare with all of the grid.

        The tokens are counted for a study with these ``eval_steps``, whatever the replayed one had.
        """
        rows = generator.integers(len(self.targets), size=len(self.targets))
        n_seeds = len(self.spec.seeds)
        drawn = {rank: generator.integers(n_seeds, size=n_seeds) for rank in self.spec.ranks}
        stored = {
            trial.trial_id: self._stored(trial, drawn[trial.rank])
            for trial in next_trials(self.spec.model_copy(update={"early_exit": False}), [], {})
        }

        def loss(trial_id: str, step: int) -> float:
            return float(self.nats[stored[trial_id]][step][rows].sum() / self.targets[rows].sum())

        def there(trial_id: str, step: int) -> bool:
            return step in self.nats[stored[trial_id]]

        planned = next_trials(self.spec, [], {})
        ends: dict[str, int] = {}
        for step in self.rungs.steps:
            left = [trial.trial_id for trial in planned if trial.trial_id not in ends]
            losses = {name: loss(name, step) for name in left if there(name, step)}
            ends |= dict.fromkeys(self.rungs.trials_to_stop(step, planned, losses), step)
        whole = {name: loss(name, self.total_steps) for name in stored if there(name, self.total_steps)}
        final = {trial.trial_id: whole[trial.trial_id] for trial in planned if trial.trial_id in whole.keys() - ends}
        more = next_trials(self.spec, planned, final)
        final |= {trial.trial_id: whole[trial.trial_id] for trial in more if trial.trial_id in whole}
        passed = sum(
            self._tokens(stored[trial.trial_id], ends.get(trial.trial_id), eval_steps, early_exit=True)
            for trial in (*planned, *more)
        )
        everything = sum(self._tokens(name, None, eval_steps, early_exit=False) for name in stored.values())
        return self._compared(
            (passed + self.eval_tokens) / (everything + self.eval_tokens), [*planned, *more], final, whole
        )

    def _stored(self, trial: TrialRecord, drawn: NDArray[np.int64]) -> str:
        seed = self.spec.seeds[drawn[self.spec.seeds.index(trial.seed)]]
        return plan_trial(self.spec, trial.arm, setting=trial.setting, seed=seed).trial_id

    def _tokens(self, name: str, end: int | None, eval_steps: int | None, *, early_exit: bool) -> int:
        """Count the tokens of a trial until it stopped, its evaluations after the start included."""
        last = min(end or self.total_steps, len(self.tokens[name]))
        spec = self.spec.model_copy(update={"early_exit": early_exit, "eval_steps": eval_steps})
        evaluations = sum(0 < step <= last for step in evaluation_steps(spec, self.total_steps))
        return sum(self.tokens[name][:last]) + evaluations * self.eval_tokens

    def _compared(
        self, share: float, trained: Sequence[TrialRecord], final: Mapping[str, float], whole: Mapping[str, float]
    ) -> Replayed:
        every = next_trials(self.spec.model_copy(update={"early_exit": False}), [], {})
        excess, same = {}, True
        for rank in self.spec.ranks:
            all_means, means = mean_losses(("", rank), every, whole), mean_losses(("", rank), trained, final)
            chosen, best = (min(found, key=found.__getitem__) for found in (means, all_means))
            excess[rank] = all_means.get(chosen, float("inf")) - all_means[best]
            same &= chosen == best
        return Replayed(share=share, same_rates=same, excess_nats=excess)


def describe(study: Exhaustive, replayed: Sequence[Replayed], eval_steps: int | None) -> list[str]:
    """Write the figures of many replayed grids."""
    shares = [grid.share for grid in replayed]
    close = [max(grid.excess_nats.values()) <= CLOSE_NATS for grid in replayed]
    of_rank = {
        rank: statistics.fmean(grid.excess_nats[rank] <= CLOSE_NATS for grid in replayed) for rank in study.spec.ranks
    }
    return [
        f"{len(replayed)} grids, eval_steps {eval_steps or 'by default'}, {study.total_steps} steps, "
        f"rungs after {', '.join(map(str, study.rungs.steps))}",
        f"  tokens passed: mean {statistics.fmean(shares):.1%} of the whole grid's, highest {max(shares):.1%}",
        f"  every rank at the same rate: {statistics.fmean(grid.same_rates for grid in replayed):.1%}",
        f"  every rank at that rate or within {CLOSE_NATS:g} nats of it: {statistics.fmean(close):.1%} "
        f"({', '.join(f'rank {rank} {share:.1%}' for rank, share in of_rank.items())})",
        f"  largest excess: {max(max(grid.excess_nats.values()) for grid in replayed):.4f} nats",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="folder of a study that trained its whole grid")
    parser.add_argument("--grids", type=int, default=2000, help="grids to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    arguments = parser.parse_args()
    try:
        study = Exhaustive(load_study(arguments.study))
    except InputError as error:
        raise SystemExit(str(error)) from None
    for eval_steps in dict.fromkeys((study.spec.eval_steps, None)):
        generator = np.random.default_rng(arguments.seed)
        replayed = [study.replay(generator, eval_steps) for _ in range(arguments.grids)]
        print("\n".join(describe(study, replayed, eval_steps)))


if __name__ == "__main__":
    main()
