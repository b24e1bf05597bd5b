"""Play a study to a view, and stand in for a run behind the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lorascope.errors import Interrupted
from lorascope.measure.environment import environment
from lorascope.message import Message
from lorascope.records import (
    EvalRecord,
    OutcomeState,
    ProgressRecord,
    ResolvedStudy,
    StepRecord,
    TrialOutcome,
    TrialRecord,
)
from lorascope.run.trackers import Tracker
from lorascope.search.trials import plan_trials
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.messages import ASKED, verbatim

RESOLVED = ResolvedStudy(
    model="a/model",
    dataset="rows.json",
    device="cpu",
    dtype="float32",
    dtype_reason=verbatim("no bf16 here"),
    packing=True,
    packing_reason=ASKED,
    kernels=True,
    kernels_reason=ASKED,
    eval_tokens=60,
    train_examples=400,
    eval_examples=48,
    train_tokens=40_000,
    train_target_tokens=20_000,
    eval_target_tokens=2_000,
    total_steps=20,
    base_parameters=1_000_000,
    target_modules=("a.q_proj",),
    data_hash="0",
    model_hash="0",
    data_notes=(),
)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class View(Protocol):
    """What a script is played to: the calls of a tracker that scripts make."""

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None: ...

    def progress(self, share_done: float, seconds_left: float) -> None: ...

    def step(self, records: Sequence[StepRecord]) -> None: ...

    def evaluation(self, record: EvalRecord) -> None: ...

    def outcome(self, outcome: TrialOutcome) -> None: ...


@dataclass
class Script:
    """Plays a study to a view: every step takes a second and 100 tokens of each trial."""

    clock: Clock = field(default_factory=Clock)
    spec: StudySpec = field(default_factory=lambda: StudySpec(ranks=(8, 128)))

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        return plan_trials(self.spec)

    def begin(self, view: View, done_steps: int = 0) -> None:
        view.begin(RESOLVED, self.trials, [record for n in range(1, done_steps + 1) for record in self.records(n)])

    def step(self, view: View, step: int, loss: float = 1.5, warmup: bool = False) -> None:
        self.clock.now += 1.0
        view.progress(step / RESOLVED.total_steps, float(RESOLVED.total_steps - step))
        view.step(self.records(step, loss, warmup))

    def records(self, step: int, loss: float = 1.5, warmup: bool = False) -> list[StepRecord]:
        return [
            StepRecord(
                trial_id=trial.trial_id,
                step=step,
                nats=50 * loss,
                target_tokens=50,
                tokens=100,
                learning_rate=1e-3,
                grad_norm=1.0,
                seconds=1.0,
                warmup=warmup,
                group=0,
            )
            for trial in self.trials
        ]

    def evaluate(self, view: View, step: int, loss: float) -> None:
        for trial in self.trials:
            view.evaluation(
                EvalRecord(
                    trial_id=trial.trial_id,
                    step=step,
                    example_nats=(10 * loss, 30 * loss),
                    example_target_tokens=(10, 30),
                    seconds=0.5,
                )
            )

    def end(
        self, view: View, state: OutcomeState = "finished", message: Message | None = None, steps: int = 20
    ) -> None:
        for trial in self.trials:
            view.outcome(TrialOutcome(trial_id=trial.trial_id, state=state, steps=steps, message=message))


class Recorder:
    """Write to a study folder what a view is told, as a run does."""

    def __init__(self, store: StudyStore, view: View) -> None:
        self.store, self.view = store, view

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None:
        self.store.put(resolved)
        self.store.put_all(trials)
        self.view.begin(resolved, trials, done)

    def progress(self, share_done: float, seconds_left: float) -> None:
        self.store.put(ProgressRecord(share_done=share_done, seconds_left=seconds_left))
        self.view.progress(share_done, seconds_left)

    def step(self, records: Sequence[StepRecord]) -> None:
        self.store.put_all(records)
        self.view.step(records)

    def evaluation(self, record: EvalRecord) -> None:
        self.store.put(record)
        self.view.evaluation(record)

    def outcome(self, outcome: TrialOutcome) -> None:
        self.store.put(outcome)
        self.view.outcome(outcome)


@dataclass
class FakeRun:
    """Stands for run_study: keeps what it was asked, plays a script and writes real records."""

    state: OutcomeState = "finished"
    message: Message | None = None
    stop_at: int | None = None
    """Step after which the run is interrupted."""

    def __call__(
        self, spec: StudySpec, folder: Path, *, trackers: Sequence[Tracker], command: str, began: float = 0.0
    ) -> None:
        spec = spec.model_copy(update={"until_decided": False, "time_budget": None})  # one round and no look
        folder.mkdir(parents=True)
        (folder / "study.yaml").write_text(dump_spec(spec))
        script = Script(spec=spec)
        with StudyStore.create(folder / "study.db") as store:
            store.put(environment(device="cpu", device_name="cpu", seeds=spec.seeds, command=command))
            view = Recorder(store, trackers[0])
            script.begin(view)
            script.evaluate(view, 0, 2.0)
            for step in range(1, 21):
                script.step(view, step)
                if step == self.stop_at:
                    script.evaluate(view, step, 1.75)
                    script.end(view, "running", steps=step)
                    raise Interrupted("stopped as asked")
            script.evaluate(view, 20, 1.25)
            script.end(view, self.state, self.message)


Asked = tuple[StudySpec, Path, str]
"""What a run was asked for: study, folder and command."""
