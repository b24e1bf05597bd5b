"""Carry a study out from its spec to its adapters, or go on where it stopped."""

import shutil
import sqlite3
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from lorascope.engine.loop import TrialGroup, train_group
from lorascope.engine.oom import is_out_of_memory
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import InputError, Interrupted, LorascopeError
from lorascope.measure.clock import StepClock
from lorascope.measure.environment import cpu_model, environment, mask_credentials
from lorascope.measure.memory import release_memory, retain_freed_memory
from lorascope.message import Message
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.adapters.lora import linear_features
from lorascope.records import (
    SETTLED,
    EvalRecord,
    OutcomeState,
    PredictionRecord,
    ResolvedStudy,
    StepRecord,
    TrialOutcome,
    TrialRecord,
)
from lorascope.run.adapters import choose_adapters, evaluations_by_trial, save_adapter
from lorascope.run.group_shards import GroupCheckpoints, GroupShard
from lorascope.run.limits import check_measured
from lorascope.run.post_training import Examination, is_examined
from lorascope.run.predict import predict_study, update_calibration
from lorascope.run.prepare import PreparedStudy, prepare_study
from lorascope.run.progress import Progress
from lorascope.run.recorder import StudyRecorder
from lorascope.run.sample_buffer import sampling
from lorascope.run.signals import StopRequest
from lorascope.run.solo_run import is_measured, measure_costs
from lorascope.search.rounds import SearchRound, next_trials, pending_round
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.store import FolderLock, StudyStore
from lorascope.store.folder import StudyFolder, begin_folder, check_disk, check_folder
from lorascope.units import lora_parameters


def run_study(spec: StudySpec, folder: Path, *, progress: Progress, command: str) -> None:
    """Train every trial of a study that is not done yet.

    Args:
        spec: what to study.
        folder: made if absent; one that holds this very study is continued.
        progress: told of everything as it happens.
        command: the command line, kept with the results.

    Raises:
        InputError: something given cannot be used; nothing was started or written.
        Interrupted: a signal came; the same call continues.
        KeyboardInterrupt: a signal came before training, or a second one; the same call continues from what is saved.
    """
    place = StudyFolder(folder)
    with StopRequest() as stop, FolderLock(place.lock) as lock:
        before = None
        continued = check_folder(place, spec)
        if continued:
            lock.acquire()
        if place.store.exists():
            with StudyStore.create(place.store) as store:
                before = store.read_one(ResolvedStudy)
                trained = before is not None and _pending(spec, store, before.total_steps) is None
                if trained and is_measured(store, spec) and is_examined(place, store, spec):
                    begin_folder(place, spec)
                    _finalize(place, store, calibrate=False)
                    progress.note("this study is complete; nothing was trained")
                    return
        study = prepare_study(spec, before, progress)
        check_disk(place, _disk_bytes(study))
        if not continued:
            _take_new_folder(place, spec, lock)
        begin_folder(place, spec)
        with StudyStore.create(place.store) as store:
            _execute(_Run(study=study, store=store, place=place, progress=progress, stop=stop), command)


def _pending(spec: StudySpec, store: StudyStore, total_steps: int) -> SearchRound | None:
    return pending_round(spec, store.outcomes(), evaluations_by_trial(store), total_steps)


def _take_new_folder(place: StudyFolder, spec: StudySpec, lock: FolderLock) -> None:
    place.path.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    if check_folder(place, spec):
        raise InputError(
            f"another run began this study in {place.path} in the meantime",
            remedy="give the command again to continue it",
        )


def _disk_bytes(study: PreparedStudy) -> int:
    """Return what adapters (4 bytes a parameter) and two checkpoints with a third being written (3 x 12) need."""
    features = [linear_features(layer.base) for layer in study.frozen.layers.values()]
    return sum(lora_parameters(trial.rank, features) for trial in plan_trials(study.spec)) * (4 + 3 * 12)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """What the packs of a run share."""

    study: PreparedStudy
    store: StudyStore
    place: StudyFolder
    progress: Progress
    stop: StopRequest

    def pending(self) -> SearchRound | None:
        """Return the pack to train now."""
        return _pending(self.study.spec, self.store, self.study.resolved.total_steps)

    def measure_costs(self, trials: Sequence[TrialRecord]) -> None:
        """Predict what the ranks of these trials cost, then measure it alone, as far as that is not known."""
        if self.study.spec.cost != "off" and not self.store.read(PredictionRecord):
            self._predict()
        measure_costs(self.study, self.store, trials, progress=self.progress, check_stop=self.stop.check)

    def _predict(self) -> None:
        """Store what the ranks and the first pack will cost; a study goes on without where that cannot be told."""
        self.progress.phase("predicting what each rank costs")
        try:
            self.store.put_all(predict_study(self.study, next_trials(self.study.spec, [], {})))
        except (InputError, KeyError, MemoryError, OSError, RuntimeError) as error:
            if not (isinstance(error, InputError | KeyError) or is_out_of_memory(error)):
                raise
            self.progress.note(f"what the ranks cost is not predicted ({error})")


def _execute(run: _Run, command: str) -> None:
    study, store = run.study, run.store
    device_name = torch.cuda.get_device_name(study.device) if study.device.type == "cuda" else cpu_model()
    store.put(study.resolved)
    store.put(environment(device=str(study.device), device_name=device_name, seeds=study.spec.seeds, command=command))
    study.frozen.limit.on_lower = partial(_smaller_passes, run)
    search_round, ended = run.pending(), True
    with sampling(store, study.device), run.stop.deferred():
        if search_round is None:
            run.measure_costs(store.read(TrialRecord))
            run.progress.begin(study.resolved, store.read(TrialRecord), _steps_done(store, store.read(TrialRecord), {}))
            for outcome in store.outcomes().values():
                run.progress.outcome(outcome)
        while search_round is not None and ended:
            ended = _run_round(run, search_round)
            search_round = run.pending()
        Examination(
            study=study, store=store, place=run.place, progress=run.progress, check_stop=run.stop.check
        ).execute()
    if search_round is None:
        _finalize(run.place, store, calibrate=True)
    else:
        choose_adapters(run.place, store)


def _run_round(run: _Run, search_round: SearchRound) -> bool:
    """Train one pack, in parts where memory does not hold it, and say whether all of it ended by itself."""
    known = {trial.trial_id for trial in run.store.read(TrialRecord)}
    run.store.put_all([trial for trial in search_round.trials if trial.trial_id not in known])
    files = GroupCheckpoints(place=run.place, search_round=search_round, store=run.store, note=run.progress.note)
    shards = files.open_shards()
    kept = {trial.trial_id: shard.steps_done for shard in shards for trial in shard.trials}
    run.progress.begin(run.study.resolved, search_round.trials, _steps_done(run.store, search_round.trials, kept))
    for outcome in _ended(run, search_round).values():
        run.progress.outcome(outcome)
    recorder = StudyRecorder(run.store, run.progress, partial(save_adapter, run.place, run.study), run.stop.check)
    while shards:
        shard = shards.pop(0)
        left = _attempt(run, search_round, shard, recorder)
        if not left:
            continue
        release_memory(run.study.device)
        run.study.frozen.limit.tokens = None  # fewer trials leave room for larger passes
        shards = [*files.halves(left), *shards]
        run.progress.note(f"memory does not hold {len(shard.trials)} trials at once; they train in turns")
    ended = len(_ended(run, search_round)) == len(search_round.trials)
    if ended:
        files.remove()
    return ended


def _steps_done(store: StudyStore, trials: Sequence[TrialRecord], kept: Mapping[str, int]) -> list[StepRecord]:
    """Return the steps of an earlier run: all of a trial that ended, and what is ``kept`` of one that goes on."""
    records = [record for trial in trials for record in store.read(StepRecord, trial_id=trial.trial_id)]
    return [record for record in records if record.step <= kept.get(record.trial_id, record.step)]


def _ended(run: _Run, search_round: SearchRound) -> dict[str, TrialOutcome]:
    outcomes = run.store.outcomes()
    names = [trial.trial_id for trial in search_round.trials if trial.trial_id in outcomes]
    return {name: outcomes[name] for name in names if outcomes[name].state in SETTLED}


def _finalize(place: StudyFolder, store: StudyStore, *, calibrate: bool) -> None:
    """Name each rank's adapter, learn from costs just measured, and remove what only an unfinished study needs."""
    choose_adapters(place, store)
    if calibrate:
        update_calibration(place.store)
    shutil.rmtree(place.checkpoints, ignore_errors=True)


def _attempt(run: _Run, search_round: SearchRound, shard: GroupShard, recorder: StudyRecorder) -> list[TrialRecord]:
    """Train a part; return the trials that are left and have to be tried in smaller parts, where memory ran out.

    Any other failure, and memory that does not hold a single trial, becomes the outcome of the trials that were left.
    """
    trials: list[TrainingTrial] = []
    try:
        run.measure_costs(shard.trials)
        layers, dtype = run.study.frozen.layers, run.study.frozen.model.dtype
        for record in shard.trials:
            trials.append(TrainingTrial(record, run.study.spec, layers, dtype))  # noqa: PERF401 - kept when one fails
        shard.restore(trials)
        for trial in trials:
            run.store.put(trial.adapter_record())
        check_measured(run.store, run.study.spec, run.study.resolved.total_steps)
        _train(run, search_round, shard, recorder, trials)
    except (LorascopeError, sqlite3.Error):
        raise
    except Exception as error:  # noqa: BLE001 - the one place where any failure of a trial becomes its outcome
        ended = _ended(run, search_round)
        left = [record for record in shard.trials if record.trial_id not in ended]
        if is_out_of_memory(error) and len(shard.trials) > 1:
            return left
        steps = {trial.record.trial_id: trial.steps_done for trial in trials}
        for outcome in _outcomes_of(error, {r.trial_id: steps.get(r.trial_id, shard.steps_done) for r in left}):
            recorder.outcome(outcome)
    finally:
        attach(run.study.frozen.layers, [])
    return []


def _smaller_passes(run: _Run, tokens: int) -> None:
    release_memory(run.study.device)
    run.progress.note(f"memory ran out: from now on at most {tokens} tokens go through the model at once")


def _train(
    run: _Run, search_round: SearchRound, shard: GroupShard, recorder: StudyRecorder, trials: Sequence[TrainingTrial]
) -> None:
    total_steps = run.study.resolved.total_steps
    run.progress.phase("training")
    recorder.begin_shard(shard.checkpoint)
    for trial in trials:
        # A trial is finished when its last evaluation and its adapter are written, not when its steps are done
        recorder.outcome(replace(trial.outcome(total_steps), state="running"))
        # Later records come again
        run.store.truncate_after([trial.record.trial_id], trial.steps_done)
    others = [record for record in search_round.trials if record not in shard.trials]
    group = TrialGroup(
        frozen=run.study.frozen,
        trials=trials,
        splits=run.study.splits,
        spec=run.study.spec,
        total_steps=total_steps,
        recorder=recorder,
        probe=StepClock(run.study.device),
        check_stop=run.stop.check,
        rungs=search_round.rungs,
        base_nats=search_round.base_nats,
        others=others,
        others_losses=_losses_by_step(run.store, others),
        places={record.trial_id: place for place, record in enumerate(run.store.read(TrialRecord))},
    )
    try:
        with retain_freed_memory(run.study.device):
            train_group(group)
    except Interrupted:
        recorder.save(trials)
        raise


def _losses_by_step(store: StudyStore, trials: Sequence[TrialRecord]) -> dict[int, dict[str, float]]:
    losses: dict[int, dict[str, float]] = {}
    for trial in trials:
        for record in store.read(EvalRecord, trial_id=trial.trial_id):
            if record.loss is not None:
                losses.setdefault(record.step, {})[trial.trial_id] = record.loss
    return losses


def _outcomes_of(error: Exception, steps: Mapping[str, int]) -> list[TrialOutcome]:
    """Make what an error was the outcome of trials that did so many steps; call it while the error is handled."""
    state: OutcomeState = "failed"
    message = Message("verbatim", text=mask_credentials(traceback.format_exc()))
    if is_out_of_memory(error):
        state = "oom"
        message = Message("trial.oom", error=str(error))
    return [TrialOutcome(trial_id=name, state=state, steps=done, message=message) for name, done in steps.items()]
