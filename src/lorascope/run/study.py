"""Carry a study out from its spec to its adapters, or go on where it stopped."""

import shutil
import sqlite3
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from lorascope.engine.checkpoint import checkpoint_steps, load_checkpoint
from lorascope.engine.loop import Pack, train_pack
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import Interrupted, LorascopeError
from lorascope.language import later
from lorascope.measure.clock import StepClock
from lorascope.measure.environment import cpu_model, environment, mask_credentials
from lorascope.measure.memory import is_out_of_memory
from lorascope.modeling.adapter import attach
from lorascope.records import OutcomeState, TrialOutcome, TrialRecord
from lorascope.run.adapters import choose_adapters, save_adapter
from lorascope.run.cost import is_measured, measure_costs
from lorascope.run.examine import Examination, is_examined
from lorascope.run.folder import StudyFolder, begin_folder, check_disk, check_folder
from lorascope.run.limits import check_measured
from lorascope.run.predict import calibrate, predict_study
from lorascope.run.prepare import PreparedStudy, prepare_study
from lorascope.run.progress import Progress
from lorascope.run.recorder import StudyRecorder
from lorascope.run.sampling import sampling
from lorascope.run.stop import StopRequest
from lorascope.run.waves import ENDED, Wave, pending_wave
from lorascope.spec.plan import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore


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
    with StopRequest() as stop:
        before = None
        if check_folder(place, spec) and place.store.exists():
            with StudyStore.create(place.store) as store:
                before = store.facts()
                trained = before is not None and pending_wave(spec, store, before.total_steps) is None
                if trained and is_measured(store, spec) and is_examined(place, store, spec):
                    begin_folder(place, spec)
                    _conclude(place)
                    progress.note("this study is complete; nothing was trained")
                    return
        study = prepare_study(spec, before, progress)
        check_disk(place, _disk_bytes(study))
        begin_folder(place, spec)
        with StudyStore.create(place.store) as store:
            _carry_out(_Run(study=study, store=store, place=place, progress=progress, stop=stop), command)


def _disk_bytes(study: PreparedStudy) -> int:
    """Return what adapters (4 bytes a parameter) and a checkpoint being replaced by another (2 x 12) need."""
    layers = study.frozen.layers.values()
    per_rank = sum(layer.weight.shape[0] + layer.weight.shape[1] for layer in layers)
    return sum(trial.rank for trial in plan_trials(study.spec)) * per_rank * (4 + 2 * 12)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """What the packs of a run share."""

    study: PreparedStudy
    store: StudyStore
    place: StudyFolder
    progress: Progress
    stop: StopRequest

    def pending(self) -> Wave | None:
        """Return the pack to train now."""
        return pending_wave(self.study.spec, self.store, self.study.facts.total_steps)

    def measure_costs(self, trials: Sequence[TrialRecord]) -> None:
        """Predict what the ranks of these trials cost, then measure it alone, as far as that is not known."""
        if self.study.spec.cost != "off" and not self.store.predictions():
            self.progress.phase("predicting what each rank costs")
            self.store.put_predictions(predict_study(self.study, trials))
        measure_costs(self.study, self.store, trials, progress=self.progress, check_stop=self.stop.check)


def _carry_out(run: _Run, command: str) -> None:
    study, store = run.study, run.store
    device_name = torch.cuda.get_device_name(study.device) if study.device.type == "cuda" else cpu_model()
    store.put_facts(study.facts)
    store.put_environment(
        environment(device=str(study.device), device_name=device_name, seeds=study.spec.seeds, command=command)
    )
    wave, ended = run.pending(), True
    with sampling(store, study.device), run.stop.deferred():
        if wave is None:
            run.measure_costs(store.trials())
            run.progress.begin(study.facts, store.trials(), study.facts.total_steps)
            for outcome in store.outcomes().values():
                run.progress.outcome(outcome)
        while wave is not None and ended:
            ended = _carry_out_wave(run, wave)
            wave = run.pending()
        Examination(
            study=study, store=store, place=run.place, progress=run.progress, check_stop=run.stop.check
        ).carry_out()
    if wave is None:
        _conclude(run.place)
    else:
        choose_adapters(run.place)


def _carry_out_wave(run: _Run, wave: Wave) -> bool:
    """Train one pack and say whether all of it ended by itself."""
    known = {trial.trial_id for trial in run.store.trials()}
    run.store.put_trials([trial for trial in wave.trials if trial.trial_id not in known])
    checkpoint = run.place.checkpoint(wave.number)
    run.progress.begin(run.study.facts, wave.trials, checkpoint_steps(checkpoint))
    recorder = StudyRecorder(run.store, run.progress, checkpoint, partial(save_adapter, run.place, run.study))
    _attempt(run, wave, recorder)
    outcomes = run.store.outcomes()
    ended = all(outcomes[trial.trial_id].state in ENDED for trial in wave.trials)
    if ended:
        checkpoint.unlink(missing_ok=True)
    return ended


def _conclude(place: StudyFolder) -> None:
    """Name each rank's adapter and remove what only an unfinished study needs; may be repeated."""
    choose_adapters(place)
    calibrate(place.store)
    shutil.rmtree(place.checkpoints, ignore_errors=True)


def _attempt(run: _Run, wave: Wave, recorder: StudyRecorder) -> None:
    """Measure and train; whatever goes wrong becomes the outcome of the trials that were not done."""
    trials: list[TrainingTrial] = []
    try:
        run.measure_costs(wave.trials)
        layers, dtype = run.study.frozen.layers, run.study.frozen.model.dtype
        trials += [TrainingTrial(record, run.study.spec, layers, dtype) for record in wave.trials]
        _restore(trials, run.store, run.place.checkpoint(wave.number))
        for trial in trials:
            run.store.put_adapter(trial.adapter_record())
        check_measured(run.place.path, run.study.spec)
        _train(run, wave, recorder, trials)
    except (LorascopeError, sqlite3.Error):
        raise
    except Exception as error:  # noqa: BLE001 - the one place where any failure of a trial becomes its outcome
        ended = {name for name, outcome in run.store.outcomes().items() if outcome.state in ENDED}
        steps = {trial.record.trial_id: trial.steps_done for trial in trials}
        left = [record.trial_id for record in wave.trials if record.trial_id not in ended]
        for outcome in _outcomes_of(error, {name: steps.get(name, 0) for name in left}):
            recorder.outcome(outcome)
    finally:
        attach(run.study.frozen.layers, [])


def _restore(trials: Sequence[TrainingTrial], store: StudyStore, checkpoint: Path) -> None:
    """Go back to the last checkpoint, or to the start; later records are dropped, as they come again."""
    if checkpoint.exists():
        load_checkpoint(checkpoint, trials)
    for trial in trials:
        # The step at which a trial diverged is on record but not among the steps done
        last = trial.steps_done + 1 if trial.diverged else trial.steps_done
        store.truncate_after([trial.record.trial_id], last)


def _train(run: _Run, wave: Wave, recorder: StudyRecorder, trials: Sequence[TrainingTrial]) -> None:
    total_steps = run.study.facts.total_steps
    run.progress.phase("training")
    for trial in trials:
        # A trial is finished when its last evaluation and its adapter are written, not when its steps are done
        outcome = trial.outcome(total_steps)
        recorder.outcome(replace(outcome, state="running") if outcome.state == "finished" else outcome)
    pack = Pack(
        frozen=run.study.frozen,
        trials=trials,
        splits=run.study.splits,
        spec=run.study.spec,
        total_steps=total_steps,
        recorder=recorder,
        probe=StepClock(run.study.device),
        check_stop=run.stop.check,
        rungs=wave.rungs,
        base_nats=wave.base_nats,
    )
    try:
        train_pack(pack)
    except Interrupted:
        recorder.save(trials)
        raise


def _outcomes_of(error: Exception, steps: Mapping[str, int]) -> list[TrialOutcome]:
    """Make what an error was the outcome of trials that did so many steps; call it while the error is handled."""
    state: OutcomeState = "failed"
    message = mask_credentials(traceback.format_exc())
    if is_out_of_memory(error):
        state = "oom"
        message = later("{error} (lower tokens_per_pass, or leave out the largest rank)").format(error=error)
    return [TrialOutcome(trial_id=name, state=state, steps=done, message=message) for name, done in steps.items()]
