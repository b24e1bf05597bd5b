"""Held-out prompts and what base and adapters answer; ``records`` has them with the other records."""

from lorascope.message import Message
from lorascope.record_registry import record


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
    """What a metric makes of one greedy answer."""

    trial_id: str
    """The trial whose adapter answered, or ``BASE_MODEL``."""
    metric: str
    """As the study names it."""
    place: int
    """Of the prompt."""
    score: float | None
    """From 0 to 1; None where the metric cannot judge the answer."""
    error: Message | None
    """Why it cannot."""
    max_new_tokens: int
    """Of the answer."""
    fingerprint: str
    """Hash of the file of a metric of the user's own, or of the row's tests; empty for others."""
