"""Run a study from its spec to its adapters, or continue one where it stopped."""

import math
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from lorascope.measure.environment import cpu_model, environment
from lorascope.modeling.adapters.modules_to_save import parameters_to_save
from lorascope.records import (
    ActivityRecord,
    BudgetRecord,
    HarnessTask,
    LookRecord,
    PredictionRecord,
    ProgressRecord,
    ResolvedStudy,
    SoloRun,
    TargetSet,
    TrialRecord,
)
from lorascope.run.adapters import best_trials, choose_adapters, scored_trials
from lorascope.run.context import RunContext, evaluations_by_trial
from lorascope.run.executors import Executor, claim_workers, make_executor
from lorascope.run.executors.inline import note_smaller_microbatches
from lorascope.run.looks import evaluate_base, take_look
from lorascope.run.post_training import PostTraining, stored_analyses
from lorascope.run.predict import predict_once, update_calibration, update_noise
from lorascope.run.prepare import PreparedStudy, prepare_study
from lorascope.run.progress import RunProgress
from lorascope.run.proof import prove_adapters
from lorascope.run.round import RoundTrainer, begin_round, earlier_steps
from lorascope.run.sample_buffer import sampling
from lorascope.run.signals import StopRequest
from lorascope.run.solo_run import measure_costs
from lorascope.run.time_budget import (
    TimeBudget,
    TooSlow,
    ended_in_vain,
    fewer_steps,
    is_out_of_time,
    spend_budget,
    study_sizes,
)
from lorascope.run.trackers import Tracker, join_trackers
from lorascope.scoring.harness import is_file
from lorascope.scoring.names import PYTHON_TESTS
from lorascope.search.allocation import end_seconds
from lorascope.search.analyses import pending_analyses
from lorascope.search.rounds import SearchRound, pending_round
from lorascope.search.sequential import goes_on
from lorascope.search.solo_runs import pending_solo_runs
from lorascope.search.trials import planned_arms, planned_parameters
from lorascope.search.work import planned_work, round_work
from lorascope.spec.load import load_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import FolderLock, StudyStore
from lorascope.store.folder import StudyFolder, as_continued, begin_folder, check_disk, check_folder


def run_study(
    spec: StudySpec,
    folder: Path,
    *,
    trackers: Sequence[Tracker],
    command: str,
    began: float | None = None,
) -> None:
    """Train every trial of a study that is not done yet, and all that follows from them.

    Args:
        spec: the study.
        folder: made if absent; one that holds this very study is continued.
        trackers: told of everything as it happens.
        command: the command line, kept with the results.
        began: ``time.monotonic()`` when the program began, from which a time budget counts; by default, now.

    Raises:
        InputError: something given cannot be used; nothing was started or written.
        Interrupted: a signal came; the same call continues.
        KeyboardInterrupt: a signal came before training, or a second one; the same call continues from what is saved.
    """
    tracker = join_trackers(trackers)
    try:
        began = time.monotonic() if began is None else began
        _run(spec, StudyFolder(folder), tracker, command=command, began=began)
    finally:
        tracker.end()


def _run(spec: StudySpec, folder: StudyFolder, tracker: Tracker, *, command: str, began: float) -> None:
    with StopRequest() as stop, FolderLock(folder.lock) as lock:
        spec = as_continued(folder, spec)
        claim = claim_workers(spec)
        spec = spec.model_copy(update={"workers": claim.workers})
        continued = check_folder(folder, spec)
        if continued:
            lock.acquire()
        before, record, solo_runs, complete = _earlier_run(folder, spec, lock)
        if complete:
            tracker.note("this study is complete; nothing was trained")
            return
        study = prepare_study(spec, before, tracker)
        if spec.budget_seconds is not None:
            tracker.phase("measuring the pace")
        study, clock, record = spend_budget(study, before, record, began, parallel=claim.parallel, solo_runs=solo_runs)
        if record is not None and "solo_runs" in record.left_out:
            tracker.note("left out, as they take too much of the time budget: solo runs of each rank")
        layers = {targets: study.layers_of(targets) for targets in study.target_sets}
        frozen = study.frozen
        whole = parameters_to_save(frozen.model, frozen.modules_to_save)
        check_disk(folder, *planned_parameters(spec, layers, whole))
        begin_folder(folder, study.spec, lock, continued=continued)
        with StudyStore.create(folder.store) as store:
            if record is not None:
                store.put(record)
            run = RunContext(
                study=study,
                store=store,
                folder=folder,
                tracker=tracker,
                progress=start_progress(study, store, tracker, began, clock),
                check_stop=stop.check,
                clock=clock,
                parallel=claim.parallel,
                has_workers=claim.processes,
            )
            _execute(run, stop, command)


def start_progress(
    study: PreparedStudy, store: StudyStore, tracker: Tracker, began: float, clock: TimeBudget
) -> RunProgress:
    """Begin to account for the time of a run whose preparation ``began`` at a moment of the monotonic clock."""
    spec, sizes, budget = study.spec, study_sizes(study), store.read_one(BudgetRecord)
    left_out = budget.left_out if budget else ()

    def tell(progress: ProgressRecord, activities: Sequence[ActivityRecord]) -> None:
        tracker.progress(progress.share_done, progress.seconds_left)
        with suppress(OSError, sqlite3.OperationalError):  # a full disk: the next second writes it
            kept = [replace(record, used_seconds=clock.used) for record in store.read(BudgetRecord)]
            store.put_all([progress, *activities, *kept])

    found = RunProgress(
        spec,
        sizes,
        began=began,
        earlier=store.read(ActivityRecord),
        tell=tell,
        limit=lambda: clock.left,
        measured=clock.pace,
    )
    found.expect(planned_work(spec, sizes, left_out=left_out))
    if "solo_runs" not in left_out:
        found.expect_solo_runs(pending_solo_runs(spec, planned_arms(spec), store.read(SoloRun)))
    if spec.cost != "off" and not store.read(PredictionRecord):
        found.expect_predictions()
    found.lap("preparation")
    return found


def _earlier_run(
    folder: StudyFolder, spec: StudySpec, lock: FolderLock
) -> tuple[ResolvedStudy | None, BudgetRecord | None, list[SoloRun], bool]:
    """Return what an earlier run resolved, how it spent its time, its solo runs, and True where it is complete."""
    if not folder.store.exists():
        return None, None, [], False
    with StudyStore.create(folder.store) as store:
        before, record = store.read_one(ResolvedStudy), store.read_one(BudgetRecord)
        lacks_proof = False
        if record is not None and (spec.budget_seconds or math.inf) > record.seconds:
            lacks_proof = "proof" in record.left_out
            record = replace(record, left_out=())
            _reopen(store)
        if record is not None:
            record = replace(record, left_out=_still_left_out(folder, spec, record.left_out))
        solo_runs = store.read(SoloRun)
        left_out = record.left_out if record else ()
        tasks = [
            one for one in store.read(HarnessTask) if one.given in spec.lm_eval and one.limit == spec.lm_eval_limit
        ]
        complete = (
            before is not None
            and not lacks_proof
            and PYTHON_TESTS not in spec.metrics  # the rows have to be read, as their tests may have changed
            and not any(map(is_file, spec.lm_eval))  # the same of documents
            and {one.given for one in tasks} >= set(spec.lm_eval)
            and _pending(spec, store, before.total_steps) is None
            and not (spec.until_decided and goes_on(store.read(LookRecord)))
            and ("solo_runs" in left_out or not pending_solo_runs(spec, planned_arms(spec), solo_runs))
            and not pending_analyses(
                spec,
                best_trials(folder, store),
                stored_analyses(store),
                scored=scored_trials(folder, store),
                n_eval=before.eval_examples,
                left_out=left_out,
                harness=tasks,
            )
        )
        if complete:
            begin_folder(folder, spec, lock, continued=True)
            choose_adapters(folder, store)
            _remove_checkpoints(folder, store)
    return before, record, solo_runs, complete


def _reopen(store: StudyStore) -> None:
    """Let trials go on that a time budget ended before any of them finished."""
    outcomes = store.outcomes().values()
    if ended_in_vain(outcomes):
        store.put_all([replace(one, state="running", message=None) for one in outcomes if is_out_of_time(one)])
        store.put_all([replace(look, next="rows") for look in store.read(LookRecord)])  # it had nothing to compare


def _remove_checkpoints(folder: StudyFolder, store: StudyStore) -> None:
    if not ended_in_vain(store.outcomes().values()):
        shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _still_left_out(folder: StudyFolder, spec: StudySpec, left_out: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a time budget left out, without answers that a study with other metrics or benchmarks needs anew."""
    if not folder.spec.is_file():
        return left_out
    before = load_spec(folder.spec, {})
    fields = {"metrics": ("metrics",), "lm_eval": ("lm_eval", "lm_eval_limit")}
    changed = {name for name, own in fields.items() if any(getattr(before, one) != getattr(spec, one) for one in own)}
    return tuple(name for name in left_out if name not in changed)


def _execute(run: RunContext, stop: StopRequest, command: str) -> None:
    _store_facts(run, command)
    run.study.frozen.limit.on_lower = partial(note_smaller_microbatches, run.study.device, run.tracker.note)
    try:
        with sampling(run.store, run.study.device, has_workers=run.has_workers, devices=run.parallel):
            run, complete = _train_in_time(run, stop)
            with stop.deferred(lambda: None):
                PostTraining(run).execute()
                prove_adapters(run)
    finally:
        run.progress.tell()
    choose_adapters(run.folder, run.store)
    if complete:
        update_calibration(run.folder.store)
        update_noise(run.folder.store, run.study.spec)
        _remove_checkpoints(run.folder, run.store)


def _train_in_time(run: RunContext, stop: StopRequest) -> tuple[RunContext, bool]:
    """Train, and begin anew with fewer steps where a time budget would end before them; True: the study is complete."""
    while True:
        try:
            with closing(make_executor(run.study)) as executor, stop.deferred(executor.stop):
                return run, _train(run, executor)
        except TooSlow as slow:
            run = _with_fewer_steps(run, slow.token_seconds)


def _with_fewer_steps(run: RunContext, token_seconds: float) -> RunContext:
    study, record = run.study, run.store.read_one(BudgetRecord)
    steps = max(1, min(study.resolved.total_steps - 1, fewer_steps(study, run.clock, token_seconds)))
    assert record is not None
    resolved = replace(study.resolved, total_steps=steps)
    run.store.put_all([resolved, replace(record, steps=steps)])
    run.tracker.note(f"training is slower than it was; it begins anew with {steps} steps, which end in time")
    study = replace(study, resolved=resolved)
    run.progress.sizes = study_sizes(study)
    return replace(run, study=study)


def _store_facts(run: RunContext, command: str) -> None:
    device, seeds = run.study.device, run.study.spec.seeds
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    run.store.put(run.study.resolved)
    if len(run.study.target_sets) > 1:
        run.store.put_all([TargetSet(name=name, layers=layers) for name, layers in run.study.target_sets.items()])
    run.store.put_all(run.study.shown)
    run.store.put_all([prompt.shown for prompt in run.study.prompts])
    run.store.put_all([one.record for one in run.study.benchmarks])
    run.store.put(environment(device=str(device), device_name=device_name, seeds=seeds, command=command))


def _train(run: RunContext, executor: Executor) -> bool:
    """Train all rounds, and those that looks ask for; return True where the study is complete."""
    if _pending(run.study.spec, run.store, run.study.resolved.total_steps) is None:
        begin_round(run, run.store.read(TrialRecord), {})
        _announce_trained(run)
    complete = _train_rounds(run, executor)
    while complete and run.study.spec.until_decided and take_look(run):
        complete = _train_rounds(run, executor)
    if complete and run.study.spec.until_decided:
        evaluate_base(run)
    return complete


def _train_rounds(run: RunContext, executor: Executor) -> bool:
    """Train round after round; return True where the search is complete, False where trials are to be tried again."""
    search_round = _pending(run.study.spec, run.store, run.study.resolved.total_steps)
    while search_round is not None:
        trainer = RoundTrainer(run, search_round, executor)
        if search_round.number and not _has_time(run, search_round):
            trainer.leave_out()
        elif not trainer.train():
            return False
        _keep_for_the_end(run)
        search_round = _pending(run.study.spec, run.store, run.study.resolved.total_steps)
    return True


def _keep_for_the_end(run: RunContext) -> None:
    """Keep for the end what it takes at the pace of the evaluations so far."""
    spec, clock = run.study.spec, run.clock
    if math.isfinite(clock.seconds):
        pace = run.progress.seconds("evaluation", 1.0)
        clock.end_seconds = end_seconds(spec, study_sizes(run.study), pace, seconds=clock.seconds)


def _has_time(run: RunContext, search_round: SearchRound) -> bool:
    """Return True where a round fits into the time that is left, by the pace of the rounds before."""
    work = round_work(run.study.spec, run.progress.sizes, search_round.trials)
    return math.fsum(run.progress.seconds(name, left) for name, left in work.items()) <= run.clock.left_for_training


def _pending(spec: StudySpec, store: StudyStore, total_steps: int) -> SearchRound | None:
    return pending_round(spec, store.outcomes(), evaluations_by_trial(store), total_steps, store.read(LookRecord))


def _announce_trained(run: RunContext) -> None:
    """Take the solo runs that a trained study still lacks, and tell the trackers what was trained."""
    trials = run.store.read(TrialRecord)
    predict_once(run)
    measure_costs(run, trials)
    run.tracker.begin(run.study.resolved, trials, earlier_steps(run, trials, {}))
    for outcome in run.store.outcomes().values():
        run.tracker.outcome(outcome)
