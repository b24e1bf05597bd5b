"""Held-out prompts, tasks of benchmarks, and what base and adapters answer; ``records`` has them with the others."""

from lorascope.message import Message
from lorascope.record_registry import record

HARNESS = "lm_eval:"
"""Names of scores of the harness begin with it."""


@record("sample_prompts", key=("place",))
class SamplePrompt:
    """A held-out prompt that base and adapters answer."""

    place: int
    """Its place among the chosen ones, from 1."""
    row: int
    """The held-out row, from 1."""
    prompt: str
    truth: str
    """How the row goes on: its completion."""
    prompt_tokens: int
    truth_tokens: int
    continued: bool
    """True for a row without a prompt, which is cut in half."""


@record("sample_answers", key=("trial_id", "place", "temperature"))
class SampleAnswer:
    """The answer of one adapter, or of the base, to one prompt."""

    trial_id: str
    """The trial whose adapter answered, or ``BASE_MODEL``."""
    place: int
    """Of the prompt."""
    text: str
    """Without the end token."""
    tokens: int
    """With it."""
    ended: bool
    """True where it ended by itself, False where it was cut at ``max_new_tokens``."""
    max_new_tokens: int
    temperature: float
    """0 for the likeliest token each time."""
    seconds: float
    """Of all answers that were made together, divided by their number."""
    error: Message | None
    """Why the model cannot generate, where it cannot."""


@record("scores", key=("trial_id", "metric", "place"))
class ScoreRecord:
    """What a metric makes of one greedy answer, or of one document of a benchmark."""

    trial_id: str
    """The trial whose adapter answered, or ``BASE_MODEL``."""
    metric: str
    """As the study names it, or ``HarnessTask.name``."""
    place: int
    """Of the prompt, or of the document, from 1."""
    score: float | None
    """From 0 to 1; None where the metric cannot judge the answer."""
    error: Message | None
    """Why it cannot."""
    max_new_tokens: int
    """Of the answer; 0 for a benchmark, whose tasks say that themselves."""
    fingerprint: str
    """Hash of the file of a metric of the user's own, or of the row's tests, or of a benchmark's requests; empty for
    others."""


@record("harness_tasks", key=("given", "task"))
class HarnessTask:
    """A task of EleutherAI's harness, whose documents base and adapters answer."""

    given: str
    """What the study names: the task, its file, or a group that it belongs to."""
    task: str
    metric: str
    """Of each document, from 0 to 1, such as ``acc``."""
    documents: int
    limit: int | None
    """The most documents that the study asks for."""
    tokens: float
    """Of all contexts and answers of one adapter, estimated from their bytes."""
    new_tokens: int
    """The most that are generated for one adapter; 0 where likelihoods are compared."""
    fingerprint: str
    """Hash of its requests."""

    @property
    def name(self) -> str:
        """Return the name of its scores."""
        return f"{HARNESS}{self.task}/{self.metric}"
