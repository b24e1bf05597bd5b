"""Shards of trial groups: all trials of a group at first, fewer where memory does not hold them.

No trial's numbers depend on the trials that train with it, so that a group can be cut at any time. A shard saves its
state in a checkpoint of its own; which trials train together after a stop follows from how far the checkpoints are.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.engine.checkpoint import previous, read_steps
from lorascope.errors import LorascopeError
from lorascope.records import SETTLED, TrialOutcome, TrialRecord
from lorascope.search.groups import TrialGroups
from lorascope.search.rounds import SearchRound
from lorascope.store import StudyStore
from lorascope.store.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupShard:
    """Trials that train together, at the same step."""

    trials: tuple[TrialRecord, ...]
    checkpoint: Path
    """Where their state is saved."""
    steps_done: int
    origin: Path | None
    """The checkpoint that holds them at this step; None before the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCheckpoints:
    """The checkpoints of one search round."""

    folder: StudyFolder
    search_round: SearchRound
    groups: TrialGroups
    """Those that the trials of the round are split into."""
    store: StudyStore
    note: Callable[[str], None]

    def open_shards(self) -> list[GroupShard]:
        """Part the trials of each group that have not ended by how far their checkpoints are, the furthest first.

        A trial that left after the state from which the others go on comes along until it leaves again: float32 sums,
        taken micro-batch by micro-batch, would otherwise be taken in another order.

        Raises:
            LorascopeError: checkpoints are damaged and there is nothing older.
        """
        for path in self.folder.checkpoints.glob(".*"):  # what a kill leaves of a file that was being written
            path.unlink()
        shards = self._shards(self._open(self.search_round.trials), self._files(), set_aside=True)
        return [self._with_companions(shard) for shard in shards]

    def reopen(self, shard: GroupShard) -> list[GroupShard]:
        """Return what is left of a shard whose worker is gone, from its last checkpoint on; other shards may train."""
        shards = self._shards(self._open(shard.trials), _own_files(shard))
        return [self._with_companions(one) for one in shards]

    def _open(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        outcomes = self.store.outcomes()
        return [trial for trial in trials if not _in(SETTLED, outcomes, trial)]

    def halves(self, shard: GroupShard) -> list[GroupShard]:
        """Cut what is left of a shard in two, the largest rank apart from the others; other shards may train.

        Trials of one rank are cut in the middle, and a single one stays alone.
        """
        records = self._open(shard.trials)
        top = max(record.rank for record in records)
        first = [record for record in records if record.rank < top] or records[: len(records) // 2]
        rest = [record for record in records if record not in first]
        files = _own_files(shard)
        return [*self._shards(first, files), *self._shards(rest, files)]

    def remove(self) -> None:
        """Delete the round's checkpoints."""
        for path in self._files():
            path.unlink()

    def _shards(
        self, records: Iterable[TrialRecord], files: Iterable[Path], *, set_aside: bool = False
    ) -> list[GroupShard]:
        """Part trials that have not ended by group and by how far they are; a damaged checkpoint is left out.

        Args:
            records: the trials.
            files: checkpoints that may hold them.
            set_aside: rename a damaged checkpoint and say that an older one takes its place; only where all trials of
                the round are given, as it is not known which of them it held.
        """
        states, damaged = self._read(files)
        shards: dict[tuple[int, Path | None, int], list[TrialRecord]] = {}
        for record in records:
            held = [(steps[record.trial_id], path) for path, steps in states if record.trial_id in steps]
            if not held and damaged:
                raise next(iter(damaged.values()))
            furthest = max(held, default=(0, None), key=lambda state: state[0])
            shards.setdefault((*furthest, self._group_of(record)), []).append(record)
        for path, error in damaged.items() if set_aside else ():
            self.note(f"{str(error).splitlines()[0]}; training goes on from an older one")
            path.replace(path.with_suffix(".damaged"))
        order = sorted(shards, key=lambda key: -key[0])
        return [self._shard(shards[key], *key[:2]) for key in order]

    def _group_of(self, trial: TrialRecord) -> int:
        return next(number for number, group in enumerate(self.groups) if trial in group)

    def _with_companions(self, shard: GroupShard) -> GroupShard:
        """Add the trials that trained with those of a shard after its state was saved, in the order of the round."""
        there = None if shard.origin is None else read_steps(shard.origin)
        group, outcomes = self.groups[self._group_of(shard.trials[0])], self.store.outcomes()
        left = [trial for trial in group if _in(SETTLED - {"finished"}, outcomes, trial)]
        companions = {
            trial.trial_id
            for trial in left
            if (there is None or there.get(trial.trial_id) == shard.steps_done)
            and self.store.count_steps(trial.trial_id, shard.steps_done + 1) > shard.steps_done
        }
        own = {trial.trial_id for trial in shard.trials}
        return replace(shard, trials=tuple(trial for trial in group if trial.trial_id in own | companions))

    def _files(self) -> list[Path]:
        whole = self.folder.checkpoint(self.search_round.number)
        return sorted({*whole.parent.glob(f"{whole.stem}.*"), *whole.parent.glob(f"{whole.stem}-*")})

    def _read(self, files: Iterable[Path]) -> tuple[list[tuple[Path, dict[str, int]]], dict[Path, LorascopeError]]:
        states: list[tuple[Path, dict[str, int]]] = []
        damaged: dict[Path, LorascopeError] = {}
        for path in (path for path in files if path.suffix == ".safetensors"):
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
                    f"the checkpoint {path} is {done} steps on, of which {self.folder.store} has lost some\n"
                    "  -> delete it, and what lies beside it, to train these trials from the start"
                )

    def _shard(self, trials: Sequence[TrialRecord], steps_done: int, origin: Path | None) -> GroupShard:
        checkpoint = self.folder.checkpoint(self.search_round.number)
        if len(trials) < len(self.search_round.trials):
            names = " ".join(trial.trial_id for trial in trials)
            checkpoint = checkpoint.with_stem(f"{checkpoint.stem}-{hashlib.sha256(names.encode()).hexdigest()[:8]}")
        return GroupShard(trials=tuple(trials), checkpoint=checkpoint, steps_done=steps_done, origin=origin)


def _own_files(shard: GroupShard) -> list[Path]:
    """Return the checkpoints that hold a shard's trials and that nothing else writes."""
    own = (shard.checkpoint, previous(shard.checkpoint), shard.origin)
    return list(dict.fromkeys(path for path in own if path is not None and path.exists()))


def _in(states: frozenset[str], outcomes: Mapping[str, TrialOutcome], trial: TrialRecord) -> bool:
    return trial.trial_id in outcomes and outcomes[trial.trial_id].state in states
