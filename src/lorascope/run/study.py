"""Carry a study out from its spec to its adapters, or go on where it stopped."""

import shutil
import sqlite3
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from lorascope.engine.checkpoint import checkpoint_steps, load_checkpoint
from lorascope.engine.loop import Pack, train_pack
from lorascope.engine.trial import TrainingTrial
from lorascope.errors import Interrupted, LorascopeError
from lorascope.measure.clock import StepClock
from lorascope.measure.environment import cpu_model, environment, mask_credentials
from lorascope.measure.memory import is_out_of_memory
from lorascope.measure.sampler import SystemSampler
from lorascope.records import OutcomeState, SystemSample, TrialOutcome, TrialRecord
from lorascope.run.adapters import choose_adapters, save_adapter
from lorascope.run.cost import measure_cost
from lorascope.run.examine import Examination, is_examined
from lorascope.run.folder import StudyFolder, begin_folder, check_disk, check_folder
from lorascope.run.limits import check_measured
from lorascope.run.prepare import PreparedStudy, prepare_study
from lorascope.run.progress import Progress
from lorascope.run.recorder import StudyRecorder
from lorascope.run.stop import StopRequest
from lorascope.spec.plan import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore

_SAMPLE_SECONDS = 1.0
_ENDED = {"finished", "diverged"}
"""When all trials are in one of these, a second run trains nothing; out of memory and failures are tried again."""


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
                done = before is not None and _is_done(store, plan_trials(spec))
                if done and is_examined(place, store, spec):
                    begin_folder(place, spec)
                    _conclude(place)
                    progress.note("this study is complete; nothing was trained")
                    return
        study = prepare_study(spec, before, progress)
        check_disk(place, _disk_bytes(study))
        begin_folder(place, spec)
        with StudyStore.create(place.store) as store:
            run = _Run(
                study=study,
                records=plan_trials(spec),
                store=store,
                recorder=StudyRecorder(store, progress, place.checkpoint, partial(save_adapter, place, study)),
                place=place,
                progress=progress,
                stop=stop,
            )
            _carry_out(run, command)


def _is_done(store: StudyStore, records: Sequence[TrialRecord]) -> bool:
    outcomes = store.outcomes()
    return all(r.trial_id in outcomes and outcomes[r.trial_id].state in _ENDED for r in records)


def _disk_bytes(study: PreparedStudy) -> int:
    """Return what adapters (4 bytes a parameter) and a checkpoint being replaced by another (2 x 12) need."""
    layers = study.frozen.layers.values()
    per_rank = sum(layer.weight.shape[0] + layer.weight.shape[1] for layer in layers)
    return sum(trial.rank for trial in plan_trials(study.spec)) * per_rank * (4 + 2 * 12)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """What the parts of a run share."""

    study: PreparedStudy
    records: Sequence[TrialRecord]
    store: StudyStore
    recorder: StudyRecorder
    place: StudyFolder
    progress: Progress
    stop: StopRequest


def _carry_out(run: _Run, command: str) -> None:
    study, store = run.study, run.store
    device_name = torch.cuda.get_device_name(study.device) if study.device.type == "cuda" else cpu_model()
    store.put_facts(study.facts)
    store.put_environment(
        environment(device=str(study.device), device_name=device_name, seeds=study.spec.seeds, command=command)
    )
    store.put_trials(run.records)
    earlier = store.samples()
    offset = earlier[-1].seconds if earlier else 0.0

    def keep(sample: SystemSample) -> None:
        store.append_samples([replace(sample, seconds=sample.seconds + offset)])

    with SystemSampler(_SAMPLE_SECONDS, keep), run.stop.deferred():
        trained = _is_done(store, run.records)
        done_steps = study.facts.total_steps if trained else checkpoint_steps(run.place.checkpoint)
        run.progress.begin(study.facts, run.records, done_steps)
        if trained:
            for outcome in store.outcomes().values():
                run.progress.outcome(outcome)
        else:
            _attempt(run)
        examination = Examination(
            study=study, store=store, place=run.place, progress=run.progress, check_stop=run.stop.check
        )
        examination.carry_out()
    if _is_done(store, run.records):
        _conclude(run.place)
    else:
        choose_adapters(run.place)


def _conclude(place: StudyFolder) -> None:
    """Name each rank's adapter and remove what only an unfinished study needs; may be repeated."""
    choose_adapters(place)
    shutil.rmtree(place.checkpoint.parent, ignore_errors=True)


def _attempt(run: _Run) -> None:
    """Measure and train; whatever goes wrong becomes the outcome of the trials that were not done."""
    trials: list[TrainingTrial] = []
    try:
        _measure_costs(run)
        layers, dtype = run.study.frozen.layers, run.study.frozen.model.dtype
        trials += [TrainingTrial(record, run.study.spec, layers, dtype) for record in run.records]
        _restore(trials, run.store, run.place)
        for trial in trials:
            run.store.put_adapter(trial.adapter_record())
        check_measured(run.place.path, run.study.spec)
        _train(run, trials)
    except (LorascopeError, sqlite3.Error):
        raise
    except Exception as error:  # noqa: BLE001 - the one place where any failure of a trial becomes its outcome
        if is_out_of_memory(error):
            _end_all(run, trials, "oom", f"{error} (lower tokens_per_pass, or leave out the largest rank)")
        else:
            _end_all(run, trials, "failed", mask_credentials(traceback.format_exc()))


def _measure_costs(run: _Run) -> None:
    """Measure the ranks that have no measurement yet, smallest first, before joint training fills the memory."""
    if run.study.spec.cost_steps == 0:
        return
    measured = {cost.rank for cost in run.store.costs()}
    by_rank = {record.rank: record for record in run.records}
    for rank in sorted(by_rank.keys() - measured):
        run.progress.phase(f"measuring what rank {rank} costs alone")
        run.recorder.cost(measure_cost(run.study, by_rank[rank], check_stop=run.stop.check))


def _restore(trials: Sequence[TrainingTrial], store: StudyStore, place: StudyFolder) -> None:
    """Go back to the last checkpoint, or to the start; later records are dropped, as they come again."""
    if place.checkpoint.exists():
        load_checkpoint(place.checkpoint, trials)
    for trial in trials:
        # The step at which a trial diverged is on record but not among the steps done
        last = trial.steps_done + 1 if trial.diverged else trial.steps_done
        store.truncate_after([trial.record.trial_id], last)


def _train(run: _Run, trials: Sequence[TrainingTrial]) -> None:
    total_steps = run.study.facts.total_steps
    run.progress.phase("training")
    for trial in trials:
        # A trial is finished when its last evaluation and its adapter are written, not when its steps are done
        outcome = trial.outcome(total_steps)
        run.recorder.outcome(replace(outcome, state="running") if outcome.state == "finished" else outcome)
    pack = Pack(
        frozen=run.study.frozen,
        trials=trials,
        splits=run.study.splits,
        spec=run.study.spec,
        total_steps=total_steps,
        recorder=run.recorder,
        probe=StepClock(run.study.device),
        check_stop=run.stop.check,
    )
    try:
        train_pack(pack)
    except Interrupted:
        run.recorder.save(trials)
        raise


def _end_all(run: _Run, trials: Sequence[TrainingTrial], state: OutcomeState, message: str) -> None:
    """Give every trial that has not ended by itself this outcome; without ``trials`` nothing was trained yet."""
    steps = {trial.record.trial_id: trial.steps_done for trial in trials}
    ended = {name for name, outcome in run.store.outcomes().items() if outcome.state in _ENDED}
    for record in run.records:
        name = record.trial_id
        if name not in ended:
            run.recorder.outcome(TrialOutcome(trial_id=name, state=state, steps=steps.get(name, 0), message=message))
