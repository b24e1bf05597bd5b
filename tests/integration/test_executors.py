"""The contract of every registered executor; one file and one line add another."""

import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.engine.checkpoint import read_steps
from lorascope.errors import InputError, Interrupted, LorascopeError
from lorascope.records import OutcomeState
from lorascope.run.executors import (
    EXECUTORS,
    Event,
    Executor,
    GroupBegins,
    GroupEnded,
    GroupFailed,
    GroupOrder,
    GroupReady,
    StepTaken,
    Take,
    TrialEvaluated,
    TrialsEnded,
    claim_workers,
    make_executor,
)
from lorascope.run.group_shards import GroupShard
from lorascope.run.prepare import PreparedStudy, prepare_study
from lorascope.search.halving import Rungs
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.store.folder import StudyFolder
from support.studies import Watcher, checkpoint_every_step, execute, read_study, study_of

STEPS = 4


@pytest.fixture(scope="session")
def spec(model_folders: Mapping[str, str], rows_file: str) -> StudySpec:
    return study_of(model_folders["llama"], rows_file, max_steps=STEPS, eval_steps=2)


@pytest.fixture(scope="session")
def study(spec: StudySpec) -> PreparedStudy:
    return prepare_study(spec, None, Watcher())


@pytest.fixture(scope="module", params=sorted(EXECUTORS))
def own(request: pytest.FixtureRequest, study: PreparedStudy) -> PreparedStudy:
    """The study with an executor of its own."""
    return with_executor(study, request.param)


@pytest.fixture(scope="module")
def executor(own: PreparedStudy) -> Iterator[Executor]:
    with closing(make_executor(own)) as made:
        yield made


def with_executor(study: PreparedStudy, name: str) -> PreparedStudy:
    return replace(study, spec=study.spec.model_copy(update={"executor": name}))


@pytest.fixture
def order(spec: StudySpec, tmp_path: Path) -> GroupOrder:
    folder, trials = StudyFolder(tmp_path / "study"), plan_trials(spec)
    shard = GroupShard(trials=trials, checkpoint=folder.checkpoint(0), steps_done=0, origin=None)
    places = {trial.trial_id: place for place, trial in enumerate(trials)}
    return GroupOrder(folder=folder, shard=shard, places=places, rungs=Rungs(), base_nats=None)


def train(executor: Executor, order: GroupOrder, act: Callable[[Event], None] = lambda event: None) -> list[Event]:
    """Train a group, call ``act`` at each event, and return the events."""
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        act(event)

    executor.train(once(order), emit)
    return events


def once(order: GroupOrder) -> Take:
    orders = [order]
    return lambda: orders.pop() if orders else None


def losses(events: list[Event]) -> list[float]:
    return [record.nats for event in events if isinstance(event, StepTaken) for record in event.records]


def test_executor_events_of_a_group_are_in_order(executor: Executor, order: GroupOrder) -> None:
    def act(event: Event) -> None:
        if isinstance(event, TrialsEnded):
            assert all(order.folder.trial_adapter(outcome.trial_id).is_dir() for outcome in event.outcomes)

    events = train(executor, order, act)
    made = next(place for place, event in enumerate(events) if isinstance(event, GroupReady))
    assert {type(event) for event in events[:made]} == {GroupBegins}
    (ready,) = (event for event in events if isinstance(event, GroupReady))
    assert [adapter.rank for adapter in ready.adapters] == [2, 4]
    steps = [
        [(record.trial_id, record.step) for record in event.records] for event in events if isinstance(event, StepTaken)
    ]
    assert steps == [[("r2", step), ("r4", step)] for step in range(1, STEPS + 1)]
    evaluated = [event.record.step for event in events if isinstance(event, TrialEvaluated)]
    assert evaluated == [0, 0, 2, 2, 4, 4]
    ended = [outcome for event in events if isinstance(event, TrialsEnded) for outcome in event.outcomes]
    assert [(outcome.trial_id, outcome.state, outcome.steps) for outcome in ended] == [
        ("r2", "finished", STEPS), ("r4", "finished", STEPS),
    ]  # fmt: skip
    assert [type(event) for event in events[-2:]] == [TrialsEnded, GroupEnded]


def test_executor_checkpoint_is_never_ahead_of_events(
    study: PreparedStudy, order: GroupOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint_every_step(monkeypatch)
    executor = make_executor(study)  # in this process, where saves can be made more frequent
    saved = []

    def act(event: Event) -> None:
        if isinstance(event, StepTaken) and order.shard.checkpoint.exists():
            saved.append((event.records[0].step, read_steps(order.shard.checkpoint)["r2"]))

    train(executor, order, act)
    assert len(saved) == STEPS - 1
    assert all(on_disk < reported for reported, on_disk in saved)


def test_executor_saves_state_on_stop_and_resumes(own: PreparedStudy, executor: Executor, order: GroupOrder) -> None:
    def act(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepTaken) and event.records[0].step == 2:
            stopped.stop()

    events: list[Event] = []
    with closing(make_executor(own)) as stopped, pytest.raises(Interrupted):
        stopped.train(once(order), act)
    assert read_steps(order.shard.checkpoint) == {"r2": 2, "r4": 2}
    shard = replace(order.shard, steps_done=2, origin=order.shard.checkpoint)
    rest = train(executor, replace(order, shard=shard))
    whole = train(executor, replace(order, folder=StudyFolder(order.folder.path / "whole")))
    assert losses(events) + losses(rest) == losses(whole)


@pytest.mark.parametrize(("rank", "state"), [(10**12, "oom"), (-1, "failed")])
def test_executor_error_is_an_event(executor: Executor, order: GroupOrder, rank: int, state: OutcomeState) -> None:
    first, second = order.shard.trials
    wrong = replace(order.shard, trials=(first, replace(second, rank=rank)))
    events = train(executor, replace(order, shard=wrong))
    failed = events[-2]
    assert isinstance(failed, GroupFailed)
    assert failed.out_of_memory == (state == "oom")
    assert failed.steps == {"r2": 0}
    assert failed.message.values
    assert isinstance(train(executor, order)[-2], TrialsEnded)


def test_executor_raises_errors_of_the_driver(executor: Executor, order: GroupOrder) -> None:
    def act(event: Event) -> None:
        if isinstance(event, StepTaken):
            raise LorascopeError("the store cannot be written")

    with pytest.raises(LorascopeError, match="cannot be written"):
        train(executor, order, act)


def test_executor_orders_and_events_can_be_pickled(executor: Executor, order: GroupOrder) -> None:
    wrong = replace(order.shard, trials=(replace(order.shard.trials[0], rank=-1),))
    sent = [order, *train(executor, order), *train(executor, replace(order, shard=wrong))]
    assert pickle.loads(pickle.dumps(sent)) == sent


def test_executor_that_is_not_registered_is_refused(spec: StudySpec) -> None:
    with pytest.raises(InputError, match="no executor 'slurm'") as caught:
        claim_workers(spec.model_copy(update={"executor": "slurm"}))
    assert "inline" in caught.value.remedy


THREADED = '''
"""Train groups in a thread; events go through a queue, as between processes."""

import pickle
from queue import Queue
from threading import Thread

from lorascope.run.executors import Claim
from lorascope.run.executors.inline import InlineExecutor


class ThreadedExecutor:
    def __init__(self, study):
        self._inline = InlineExecutor(study)

    @staticmethod
    def claim(spec):
        return Claim(workers=spec.workers)

    def stop(self):
        self._inline.stop()

    def close(self):
        pass

    def train(self, take, emit):
        while (order := take()) is not None:
            sent, handled = Queue(), Queue()
            worker = Thread(target=self._work, args=(pickle.dumps(order), sent, handled))
            worker.start()
            while (item := sent.get()) is not None:
                emit(pickle.loads(item))
                handled.put(None)
            worker.join()

    def _work(self, order, sent, handled):
        def emit(event):
            sent.put(pickle.dumps(event))
            handled.get()

        orders = [pickle.loads(order)]
        try:
            self._inline.train(lambda: orders.pop() if orders else None, emit)
        finally:
            sent.put(None)
'''


def test_executor_is_added_by_one_file_and_one_line(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threaded.py").write_text(THREADED, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXECUTORS, "threaded", "threaded:ThreadedExecutor")
    watcher = execute(spec.model_copy(update={"executor": "threaded"}), tmp_path / "threaded")
    assert "threaded" in sys.modules
    assert watcher.steps == [1, 2, 3, 4]
    execute(spec, tmp_path / "inline")
    assert read_study(tmp_path / "threaded") == read_study(tmp_path / "inline")
