"""The trials of a pack that train together: all of them at first, fewer where memory does not hold them.

No trial's numbers depend on the others beside it, so that a pack can be cut at any time. A part saves its state in a
file of its own; which trials train together after a stop follows from how far the files say they are.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.engine.checkpoint import load_checkpoint, read_steps
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import LorascopeError
from lorascope.records import SETTLED, TrialOutcome, TrialRecord
from lorascope.search.rounds import SearchRound
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupShard:
    """Trials of a pack at the same step."""

    trials: tuple[TrialRecord, ...]
    checkpoint: Path
    """Where this part saves its state."""
    steps_done: int
    origin: Path | None
    """The file that holds the trials at this step; None at the start."""

    def restore(self, trials: Sequence[TrainingTrial]) -> None:
        """Bring the freshly made trials of this part to where it is. Raises LorascopeError for a damaged file."""
        if self.origin is not None:
            load_checkpoint(self.origin, trials)


def _finished(outcomes: Mapping[str, TrialOutcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome.state == "finished"}


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCheckpoints:
    """The checkpoints of one pack."""

    place: StudyFolder
    search_round: SearchRound
    store: StudyStore
    note: Callable[[str], None]

    def shards(self, records: Iterable[TrialRecord], *, set_aside: bool = False) -> list[GroupShard]:
        """Group trials by how far they are on disk, those that are furthest first.

        A damaged checkpoint is left out.

        Args:
            records: trials that have not ended.
            set_aside: say that a checkpoint is damaged and rename it, as an older one takes its place; only for all
                trials, since nobody knows which of them it held.

        Raises:
            LorascopeError: checkpoints are damaged and nothing older is there.
        """
        states, damaged = self._read()
        groups: dict[tuple[int, Path | None], list[TrialRecord]] = {}
        for record in records:
            held = [(steps[record.trial_id], path) for path, steps in states if record.trial_id in steps]
            if not held and damaged:
                raise next(iter(damaged.values()))
            groups.setdefault(max(held, default=(0, None), key=lambda state: state[0]), []).append(record)
        for path, error in damaged.items() if set_aside else ():
            self.note(f"{str(error).splitlines()[0]}; training goes on from an older one")
            path.replace(path.with_suffix(".damaged"))
        order = sorted(groups, key=lambda group: -group[0])
        return [self._shard(groups[group], *group) for group in order]

    def open_shards(self) -> list[GroupShard]:
        """Group the pack's trials that have not ended.

        One that left after the state from which the others go on comes along until it leaves again: float32 sums, taken
        pass by pass, would else be taken in another order.
        """
        for path in self.place.checkpoints.glob(".tmp*"):  # what a kill leaves of a file that safetensors was writing
            path.unlink()
        outcomes = self.store.outcomes()
        ended = {name for name, outcome in outcomes.items() if outcome.state in SETTLED}
        shards = self.shards(
            (trial for trial in self.search_round.trials if trial.trial_id not in ended), set_aside=True
        )
        left = [trial for trial in self.search_round.trials if trial.trial_id in ended - _finished(outcomes)]
        return [replace(shard, trials=self._with_companions(shard, left)) for shard in shards]

    def _with_companions(self, shard: GroupShard, left: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
        """Add the trials that trained beside those of a part after its state was saved, in the order of the pack."""
        there = None if shard.origin is None else read_steps(shard.origin)
        beside = {
            trial.trial_id
            for trial in left
            if (there is None or there.get(trial.trial_id) == shard.steps_done)
            and self.store.count_steps(trial.trial_id, shard.steps_done + 1) > shard.steps_done
        }
        own = {trial.trial_id for trial in shard.trials}
        return tuple(trial for trial in self.search_round.trials if trial.trial_id in own | beside)

    def halves(self, records: Sequence[TrialRecord]) -> list[GroupShard]:
        """Cut trials in two, the largest rank apart from the others if there are others; a single one stays alone."""
        top = max(record.rank for record in records)
        first = [record for record in records if record.rank < top] or records[: len(records) // 2]
        rest = [record for record in records if record not in first]
        return [*self.shards(first), *self.shards(rest)]

    def remove(self) -> None:
        """Delete the pack's checkpoints."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        whole = self.place.checkpoint(self.search_round.number)
        return sorted({*whole.parent.glob(f"{whole.stem}.*"), *whole.parent.glob(f"{whole.stem}-*")})

    def _read(self) -> tuple[list[tuple[Path, dict[str, int]]], dict[Path, LorascopeError]]:
        states: list[tuple[Path, dict[str, int]]] = []
        damaged: dict[Path, LorascopeError] = {}
        for path in (path for path in self._files() if path.suffix == ".safetensors"):
            try:
                steps = read_steps(path)
                self._check_on_record(path, steps)
                states.append((path, steps))
            except LorascopeError as error:
                damaged[path] = error
        return states, damaged

    def _check_on_record(self, path: Path, steps: dict[str, int]) -> None:
        """Refuse a state whose steps the store has lost: the curve would have a hole."""
        for trial_id, done in steps.items():
            if self.store.count_steps(trial_id, done) != done:
                raise LorascopeError(
                    f"the checkpoint {path} is {done} steps on, of which {self.place.store} has lost some\n"
                    "  -> delete it, and what lies beside it, to train these trials from the start"
                )

    def _shard(self, trials: Sequence[TrialRecord], steps_done: int, origin: Path | None) -> GroupShard:
        checkpoint = self.place.checkpoint(self.search_round.number)
        if len(trials) < len(self.search_round.trials):
            names = " ".join(trial.trial_id for trial in trials)
            checkpoint = checkpoint.with_stem(f"{checkpoint.stem}-{hashlib.sha256(names.encode()).hexdigest()[:8]}")
        return GroupShard(trials=tuple(trials), checkpoint=checkpoint, steps_done=steps_done, origin=origin)
