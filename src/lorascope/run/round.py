"""Train one round of the search: hand trial groups to the executor, and store what it reports."""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lorascope.message import Message
from lorascope.records import SETTLED, EvalRecord, LookRecord, OutcomeState, StepRecord, TrialOutcome, TrialRecord
from lorascope.run.context import RunContext, evaluations_by_trial
from lorascope.run.executors import (
    Event,
    Executor,
    GroupBegins,
    GroupEnded,
    GroupFailed,
    GroupOrder,
    GroupReady,
    Noted,
    StepTaken,
    TrialEvaluated,
    TrialsEnded,
    WorkerLost,
)
from lorascope.run.group_shards import GroupCheckpoints, GroupShard
from lorascope.run.limits import check_measured
from lorascope.run.predict import predict_once
from lorascope.run.retry import WriteRetry
from lorascope.run.solo_run import measure_costs
from lorascope.run.time_budget import OutOfTime, TooSlow, ended_in_vain, study_sizes
from lorascope.search.best import latest_losses
from lorascope.search.groups import heaviest_share, split_round
from lorascope.search.halving import Rungs
from lorascope.search.rounds import SearchRound
from lorascope.search.work import Sizes, TrialProgress, round_work
from lorascope.store.folder import StudyFolder
from lorascope.store.tables import Record

_PACED_STEPS = 3
"""Steps after which the pace is known."""
_PACED_SHARE = 0.05
"""Share of the time left that the pace is averaged over: a machine that is busy for a moment costs no steps."""
_SLACK = 1.1
"""A round may seem to take this much longer than there is time, as a pace varies."""
_MOST_LOST = 3
"""Workers that a trial may lose without getting to another checkpoint before it counts as failed."""


class RoundTrainer:
    """Trains the trials of one round, all at once, in as many groups as there are workers, or as memory holds them."""

    def __init__(self, run: RunContext, search_round: SearchRound, executor: Executor) -> None:
        self._run = run
        self._round = search_round
        self._executor = executor
        self._folder = StudyFolder(run.folder.path.absolute())  # a worker may be somewhere else
        self._retry = WriteRetry(run.tracker.note, run.check_stop)
        self._checkpoints = GroupCheckpoints(
            folder=self._folder,
            search_round=search_round,
            groups=split_round(search_round, run.study.spec.workers or 1, study_sizes(run.study).train_step),
            store=run.store,
            note=run.tracker.note,
        )
        self._shards: deque[GroupShard] = deque()
        self._running: list[GroupShard] = []
        self._most_running = 1
        """Groups that train at once."""
        self._lost: Counter[str] = Counter()
        self._are_costs_known = False
        self._recent: defaultdict[int, deque[tuple[float, float]]] = defaultdict(deque)
        """Seconds and work of the last steps of a group."""

    def train(self) -> bool:
        """Train the trials that have not ended, and return True where none of them has to be tried again."""
        known = {trial.trial_id for trial in self._run.store.read(TrialRecord)}
        self._run.store.put_all([trial for trial in self._round.trials if trial.trial_id not in known])
        self._shards.extend(self._checkpoints.open_shards())
        self._announce()
        try:
            self._executor.train(self._take, self._handle)
        except TooSlow:
            self._begin_anew()
            raise
        except OutOfTime:
            self._run.tracker.note("the time budget ends: training stops")
            self._write_outcomes(self._ended_by_time())
        ended = len(self._ended()) == len(self._round.trials)
        if ended and not ended_in_vain(self._run.store.outcomes().values()):
            self._checkpoints.remove()
        return ended

    def _begin_anew(self) -> None:
        """Forget all steps of the round."""
        names = [trial.trial_id for trial in self._round.trials]
        self._checkpoints.remove()
        self._run.store.truncate_after(names, -1)
        self._run.store.put_all([TrialOutcome(trial_id=name, state="running", steps=0, message=None) for name in names])

    def leave_out(self) -> None:
        """End a round before it begins, for want of time; trackers are not told of its trials."""
        self._run.store.put_all(self._round.trials)
        self._write(self._ended_by_time())
        begin_round(self._run, self._round.trials, {})
        names = ", ".join(trial.trial_id for trial in self._round.trials)
        self._run.tracker.note(f"the time budget ends before {names}")

    def _ended_by_time(self) -> list[TrialOutcome]:
        """Return the outcomes of the trials that have not ended."""
        ended, message = {outcome.trial_id for outcome in self._ended()}, Message("trial.no_time")
        return [
            TrialOutcome(trial_id=name, state="stopped", steps=self._steps(name), message=message)
            for name in (trial.trial_id for trial in self._round.trials)
            if name not in ended
        ]

    def _steps(self, trial_id: str) -> int:
        return self._run.store.count_steps(trial_id, self._run.study.resolved.total_steps)

    def _announce(self) -> None:
        kept = {trial.trial_id: shard.steps_done for shard in self._shards for trial in shard.trials}
        steps = earlier_steps(self._run, self._round.trials, kept)
        begin_round(self._run, self._round.trials, kept)
        self._run.tracker.begin(self._run.study.resolved, self._round.trials, steps)
        for outcome in self._ended():
            self._run.tracker.outcome(outcome)

    def _take(self) -> GroupOrder | None:
        """Order the first shard that need not wait until another one is past its rungs; None if each has to."""
        shard = next((shard for shard in self._shards if not self._must_wait(shard)), None)
        if shard is None:
            return None
        self._shards.remove(shard)
        self._running.append(shard)
        self._most_running = max(self._most_running, len(self._running))
        return self._order(shard)

    def _must_wait(self, shard: GroupShard) -> bool:
        """Return True where settings of one arm train elsewhere, as what stops at a rung would depend on who is ahead.

        Memory may have split them.
        """
        running = {trial.arm for other in self._running for trial in other.trials}
        return bool(self._round.rungs.steps) and not running.isdisjoint(trial.arm for trial in shard.trials)

    def _order(self, shard: GroupShard) -> GroupOrder:
        return GroupOrder(
            folder=self._folder,
            shard=shard,
            places={trial.trial_id: place for place, trial in enumerate(self._run.store.read(TrialRecord))},
            rungs=self._rungs(shard),
            base_nats=self._round.base_nats,
        )

    def _rungs(self, shard: GroupShard) -> Rungs:
        """Compare with the settings of its arms that train at another time."""
        arms = {trial.arm for trial in shard.trials}
        absent = tuple(trial for trial in self._round.trials if trial.arm in arms and trial not in shard.trials)
        losses: dict[int, dict[str, float]] = {}
        for trial in absent:
            for record in self._run.store.read(EvalRecord, trial_id=trial.trial_id):
                if record.loss is not None:
                    losses.setdefault(record.step, {})[trial.trial_id] = record.loss
        return replace(self._round.rungs, others=absent, others_losses=losses)

    def _handle(self, event: Event) -> None:
        """Store what an event brings, then tell the trackers."""
        tracker = self._run.tracker
        match event:
            case GroupBegins():
                self._measure_costs()
            case GroupReady():
                self._begin_group(event)
            case StepTaken():
                self._write(event.records)
                self._run.progress.step(event.records)
                tracker.step(event.records)
                self._check_time(event.records)
            case TrialEvaluated():
                self._write([event.record])
                self._run.progress.evaluation(event.record)
                tracker.evaluation(event.record)
            case TrialsEnded():
                self._write_outcomes(event.outcomes)
            case GroupFailed():
                self._give_up(event)
            case GroupEnded():
                self._running.remove(event.order.shard)
            case WorkerLost():
                self._running.remove(event.order.shard)
                self._recover(event)
            case Noted():
                tracker.note(event.text)

    def _measure_costs(self) -> None:
        """Predict and measure what ranks cost alone, once, before anything else of the round uses the machine."""
        if not self._are_costs_known:
            self._are_costs_known = True
            predict_once(self._run)
            measure_costs(self._run, [trial for shard in (*self._running, *self._shards) for trial in shard.trials])

    def _check_time(self, records: Sequence[StepRecord]) -> None:
        """End the round where the time budget ends before its last step."""
        if math.isinf(self._run.clock.seconds) or records[0].step == self._run.study.resolved.total_steps:
            return
        time_left = self._time_left()
        self._check_pace(records, self._run.progress.sizes, time_left)
        if time_left <= 0:
            raise OutOfTime("the time budget is used up")

    def _time_left(self) -> float:
        """Return the seconds in which the round has to end: the analyses give way while no trial has finished."""
        clock, is_first = self._run.clock, not self._round.number
        has_answer = any(outcome.state == "finished" for outcome in self._ended())
        return clock.left_for_report if is_first and not has_answer else clock.left_for_training

    def _check_pace(self, records: Sequence[StepRecord], sizes: Sizes, time_left: float) -> None:
        """Raise TooSlow where the first round cannot end in time and no group has ended, whose steps would be lost."""
        alive, step = {record.trial_id for record in records}, records[0].step
        trials = [trial for trial in self._round.trials if trial.trial_id in alive]
        if records[0].warmup or self._round.number:
            return
        recent = self._recent[records[0].group]
        recent.append((records[0].seconds, sum(sizes.train_step(trial.arm) for trial in trials)))
        seconds = math.fsum(step_seconds for step_seconds, _ in recent)
        while len(recent) > _PACED_STEPS and seconds - recent[0][0] >= _PACED_SHARE * time_left:
            seconds -= recent.popleft()[0]
        if len(recent) < _PACED_STEPS or seconds < _PACED_SHARE * time_left:
            return
        waiting = math.fsum(self._work_left(sizes, shard.trials, shard.steps_done) for shard in self._shards)
        left = self._work_left(sizes, trials, step) + waiting / self._most_running
        pace = seconds / math.fsum(work for _, work in recent)
        is_slow = pace * left > _SLACK * time_left
        if is_slow and all(outcome.state != "finished" for outcome in self._ended()):
            raise TooSlow(pace * heaviest_share(self._round, self._most_running, sizes.train_step))

    def _work_left(self, sizes: Sizes, trials: Sequence[TrialRecord], steps: int) -> float:
        left = round_work(self._run.study.spec, sizes, trials, steps=steps)
        return left["training"] + left["evaluation"]

    def _begin_group(self, ready: GroupReady) -> None:
        run, shard = self._run, ready.order.shard
        run.store.put_all(ready.adapters)
        check_measured(run.store, run.study.spec, run.study.resolved.total_steps)
        run.tracker.phase("training")
        # a trial is finished when its last evaluation and its adapter are written, not when its steps are done
        self._write_outcomes(
            [
                TrialOutcome(trial_id=trial.trial_id, state="running", steps=shard.steps_done, message=None)
                for trial in shard.trials
            ]
        )
        # later records come again
        run.store.truncate_after([trial.trial_id for trial in shard.trials], shard.steps_done)

    def _give_up(self, failed: GroupFailed) -> None:
        """Train the trials that are left in smaller shards where memory ran out; else the error is their outcome."""
        shard, ended = failed.order.shard, {outcome.trial_id for outcome in self._ended()}
        left = [trial for trial in shard.trials if trial.trial_id not in ended]
        if failed.out_of_memory and len(shard.trials) > 1 and left:
            self._shards.extendleft(reversed(self._checkpoints.halves(shard)))
            self._run.tracker.note(f"memory does not hold {len(shard.trials)} trials at once; they train in turns")
            return
        state: OutcomeState = "oom" if failed.out_of_memory else "failed"
        for trial in left:
            steps = failed.steps.get(trial.trial_id, shard.steps_done)
            self._write_outcomes(
                [TrialOutcome(trial_id=trial.trial_id, state=state, steps=steps, message=failed.message)]
            )

    def _recover(self, lost: WorkerLost) -> None:
        """Train the group of a worker that is gone on from its checkpoint; too often, and its trials failed."""
        shard, tracker = lost.order.shard, self._run.tracker
        reopened = self._checkpoints.reopen(shard)
        names = [trial.trial_id for one in reopened for trial in one.trials]
        if any(one.steps_done > shard.steps_done for one in reopened):
            self._lost.subtract({name: self._lost[name] for name in names})
        self._lost.update(names)
        if not names:
            tracker.note(f"{lost.worker} ended ({lost.reason}); all of its trials had ended")
            return
        if max(self._lost[name] for name in names) <= _MOST_LOST:
            tracker.note(f"{lost.worker} ended ({lost.reason}); its trials go on from their last checkpoint")
            self._shards.extendleft(reversed(reopened))
            return
        message = Message("trial.workers_lost", count=_MOST_LOST + 1, reason=lost.reason)
        ended = {outcome.trial_id for outcome in self._ended()}
        self._write_outcomes(
            [
                TrialOutcome(trial_id=name, state="failed", steps=self._steps(name), message=message)
                for name in names
                if name not in ended
            ]
        )

    def _ended(self) -> list[TrialOutcome]:
        outcomes = self._run.store.outcomes()
        found = [outcomes[trial.trial_id] for trial in self._round.trials if trial.trial_id in outcomes]
        return [outcome for outcome in found if outcome.state in SETTLED]

    def _write(self, records: Sequence[Record]) -> None:
        self._retry.write(lambda: self._run.store.put_all(records))

    def _write_outcomes(self, outcomes: Sequence[TrialOutcome]) -> None:
        self._write(outcomes)
        for outcome in outcomes:
            self._run.progress.outcome(outcome)
            self._run.tracker.outcome(outcome)
        self._run.progress.lap("training")


def begin_round(run: RunContext, trials: Sequence[TrialRecord], kept: Mapping[str, int]) -> None:
    """Begin the progress of a round, of whose trials so many steps are ``kept``; all others have ended."""
    evaluations, outcomes, ids = evaluations_by_trial(run.store), run.store.outcomes(), {t.trial_id for t in trials}
    progress = [
        TrialProgress(
            trial=trial,
            steps=kept.get(trial.trial_id, 0),
            evaluated=max(
                (one.step for one in evaluations.get(trial.trial_id, ()) if one.step <= kept.get(trial.trial_id, 0)),
                default=-1,
            ),
            ended=trial.trial_id not in kept,
        )
        for trial in trials
    ]
    run.progress.begin_round(
        progress,
        before=[trial for trial in run.store.read(TrialRecord) if trial.trial_id not in ids],
        losses=latest_losses(outcomes, evaluations),
        looks=run.store.read(LookRecord),
    )


def earlier_steps(run: RunContext, trials: Iterable[TrialRecord], kept: Mapping[str, int]) -> list[StepRecord]:
    """Return the steps of an earlier run: all of a trial that ended, and what is ``kept`` of one that goes on."""
    records = [record for trial in trials for record in run.store.read(StepRecord, trial_id=trial.trial_id)]
    return [record for record in records if record.step <= kept.get(record.trial_id, record.step)]
