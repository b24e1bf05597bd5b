"""Events of ``lorascope run --json-events``: the shape of each line; docs/json.md is made from it."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from lorascope.analysis.section import Section
from lorascope.analysis.verdict.schema import Evidence, Status
from lorascope.look_records import LookNext
from lorascope.records import OutcomeState

EVENTS_VERSION: Literal[1] = 1
"""Grows when a field changes its meaning or goes away; events and fields may be added without."""
RunEnd = Literal["done", "trial_failed", "bad_input", "interrupted", "error"]


class StartedEvent(Section):
    """The program began; always the first line."""

    event: Literal["started"] = "started"
    events_version: Literal[1] = EVENTS_VERSION
    """Version of this format."""
    lorascope_version: str
    """Version of the program."""
    command: str
    """The command line."""


class StudyEvent(Section):
    """The study was read and is about to be prepared; a run that is refused for its flags or file does not have it."""

    event: Literal["study"] = "study"
    folder: str
    """The study's folder: the argument of ``report``, ``export`` and ``push``, and of ``run`` to continue."""
    model: str
    """Base model, as it was asked for."""
    ranks: tuple[int, ...]
    """Ranks to compare."""


class PhaseEvent(Section):
    """An activity began, such as loading the model."""

    event: Literal["phase"] = "phase"
    text: str
    """The activity in words, which may change in any version."""


class ProgressEvent(Section):
    """How far the run is; at most one a second."""

    event: Literal["progress"] = "progress"
    share_done: float
    """Share of the run's time that has passed, from 0 to 1."""
    seconds_left: float
    """Predicted seconds until the report."""


class NoteEvent(Section):
    """Something the user should know, such as a fallback that was taken."""

    event: Literal["note"] = "note"
    text: str
    """One sentence."""


class WarningEvent(Section):
    """Something that may make the whole study useless, such as most rows dropped."""

    event: Literal["warning"] = "warning"
    text: str
    """One sentence."""


class TrialPart(Section):
    """A trial that trains in this round."""

    trial_id: str
    """Its name in all other events."""
    rank: int
    """LoRA rank r."""
    lora_alpha: float
    """LoRA alpha."""
    learning_rate: float
    """Peak learning rate."""
    seed: int
    """Seed of initial values, order and dropout."""
    targets: str
    """Name of its set of target modules; empty where the study has one."""
    steps_done: int
    """Steps that an earlier run of the same study took; they have no ``step`` events here."""


class RoundEvent(Section):
    """Trials begin: all of the study's, or those that join it later."""

    event: Literal["round"] = "round"
    device: str
    """Where it runs."""
    dtype: str
    """Precision of the frozen base."""
    train_examples: int
    """Rows trained on."""
    eval_examples: int
    """Rows held out."""
    total_steps: int
    """Optimizer steps of each trial."""
    trials: tuple[TrialPart, ...]
    """Trials of the round."""


class SoloRunEvent(Section):
    """The cost of a rank alone was measured."""

    event: Literal["solo_run"] = "solo_run"
    rank: int
    """LoRA rank r."""
    targets: str
    """Name of its set of target modules; empty where the study has one."""
    step_seconds: float
    """Median seconds of a step."""
    peak_bytes: int
    """Peak memory of a training step."""


class StepEvent(Section):
    """One optimizer step of one trial."""

    event: Literal["step"] = "step"
    trial_id: str
    """The trial."""
    step: int
    """Counted from 1."""
    loss: float | None
    """Training loss before the update, in nats a token; null where it is not finite."""
    grad_norm: float | None
    """Gradient norm before clipping; null where it is not finite."""
    learning_rate: float
    """Learning rate of the update."""
    tokens: int
    """Tokens through the model, prompts included."""
    seconds: float
    """Wall time of the step of all trials that train together, not of this trial."""
    warmup: bool
    """True for the first steps of a process, which no average includes."""


class EvaluationEvent(Section):
    """A held-out evaluation."""

    event: Literal["evaluation"] = "evaluation"
    trial_id: str
    """The trial."""
    step: int
    """Steps done; at 0 the loss is the base model's."""
    loss: float | None
    """Held-out loss in nats a token; null where it is not finite."""
    examples: int
    """Held-out rows."""
    seconds: float
    """Wall time."""


class OutcomeEvent(Section):
    """A trial began to train, or ended."""

    event: Literal["outcome"] = "outcome"
    trial_id: str
    """The trial."""
    state: OutcomeState
    """``running``: it begins. ``stopped``: its learning rate fell behind, as planned."""
    steps: int
    """Steps done."""
    reason: str | None
    """Why, for the states that need a reason."""


class LookEvent(Section):
    """A look of a study that decides how long it goes on (``until_decided``, ``time_budget``)."""

    event: Literal["look"] = "look"
    look: int
    """Counted from 1."""
    ranks: tuple[int, ...]
    """Ranks that are compared: those that no earlier look settled."""
    seeds: tuple[int, ...]
    """Seeds that they have."""
    rows: int
    """Held-out rows."""
    next: LookNext
    """What follows: ``rows`` and ``seed`` take more data, the others end the study."""
    next_ranks: tuple[int, ...]
    """Ranks still in question."""
    next_value: int
    """Held-out rows to have, or the seed to train; 0 at an end."""
    next_seconds: float
    """Predicted seconds of what follows."""
    text: str
    """The same in a sentence."""


class NextStep(Section):
    """A command that would decide or continue the study, or write the adapter."""

    title: str
    """What it is for."""
    command: str
    """Complete: real paths, no placeholders."""
    note: str
    """What it does and how long it takes; may be empty."""


class AnswerEvent(Section):
    """The study's answer, once its report is written: a shortened ``summary.json``."""

    event: Literal["answer"] = "answer"
    status: Status
    """The study in one word, as in ``summary.json``."""
    text: str
    """The answer in one sentence."""
    rank: int | None
    """The rank to use; null when the records support none."""
    evidence: Evidence | None
    """How sure it is that its loss is within the tolerance of the lowest; null with one rank."""
    adapter: str | None
    """Folder of that rank's adapter in PEFT's format; null where there is none."""
    summary: str
    """Path of ``summary.json``, which has every number."""
    report: str
    """Path of ``report.html``."""
    next_steps: tuple[NextStep, ...]
    """What to run next; empty where nothing is left to decide."""


class EndedEvent(Section):
    """The program ends; always the last line, unless it is killed."""

    event: Literal["ended"] = "ended"
    state: RunEnd
    """``trial_failed``: the study is complete but for trials that failed, diverged or ran out of memory; ``bad_input``:
    nothing was trained; ``interrupted``: the same command continues."""
    exit_code: Literal[0, 1, 2, 130]
    """The exit code of the program."""
    problem: str | None = None
    """What went wrong, for ``bad_input`` and ``error``."""
    remedy: str | None = None
    """What to do about it, for ``bad_input``."""


Event = Annotated[
    StartedEvent
    | StudyEvent
    | PhaseEvent
    | ProgressEvent
    | NoteEvent
    | WarningEvent
    | RoundEvent
    | SoloRunEvent
    | StepEvent
    | EvaluationEvent
    | OutcomeEvent
    | LookEvent
    | AnswerEvent
    | EndedEvent,
    Field(discriminator="event"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
"""Reads a line, and has the JSON Schema of all."""
