"""Records of a study that decides as it goes: looks at its data, further held-out rows, its time budget."""

from typing import Annotated, Literal

from lorascope.record_registry import record

LookNext = Literal["rows", "seed", "decided", "steps", "exhausted", "budget"]
"""What follows a look. ``rows``: further held-out rows; ``seed``: one more seed. Else it is the last: with a verdict,
or because only more steps could bring one, because there are no more rows and seeds, or no more time."""
GOES_ON = frozenset({"rows", "seed"})
"""What is followed by another look."""


@record("looks", key=("look",))
class LookRecord:
    """One look of a sequential study: the losses that it compares, and what follows from them."""

    look: int
    """Counted from 1."""
    ranks: tuple[int, ...]
    """Ranks that are compared, ascending: those that no earlier look has settled."""
    lora_alphas: tuple[float, ...]
    """That of each of the ranks."""
    learning_rates: tuple[float, ...]
    """The same."""
    seeds: tuple[int, ...]
    rows: int
    """Held-out rows, the first of the study's."""
    information: float
    """Share of the most information that the study can have."""
    next: LookNext
    next_ranks: tuple[int, ...]
    """Ranks that are in question still."""
    next_value: int
    """Held-out rows to have, or the seed to train; 0 at an end."""
    next_seconds: float
    """What it is expected to take; where the time does not allow it, what it would have taken."""

    @property
    def settings(self) -> dict[int, tuple[float, float]]:
        """Alpha and learning rate by rank."""
        return dict(zip(self.ranks, zip(self.lora_alphas, self.learning_rates, strict=True), strict=True))


@record("further_evaluations", key=("trial_id", "first_row"))
class FurtherEvalRecord:
    """Loss of a trained adapter, or of the base, on held-out rows beyond those that its training is evaluated on."""

    trial_id: str
    """The trial whose adapter was evaluated, or ``BASE_MODEL``."""
    first_row: int
    """Place of the first of these rows among the study's held-out rows."""
    example_nats: tuple[float, ...]
    example_target_tokens: Annotated[tuple[int, ...], "int32"]
    seconds: float
    example_correct_tokens: Annotated[tuple[int, ...], "int32"] | None = None
    """Target tokens that were the likeliest one."""


@record("budgets", key=())
class BudgetRecord:
    """How a time budget is spent."""

    seconds: float
    used_seconds: float
    """Running time so far, over all starts."""
    training_pace: float
    """Seconds of a token forward through one adapter in training, each token counted twice, as first measured."""
    evaluation_pace: float
    """The same in evaluation."""
    steps: int
    """Optimizer steps chosen for each trial."""
    left_out: tuple[str, ...]
    """What the time did not suffice for: ``solo_runs``, ``spectra``, ``generic_text``, ``truncation``,
    ``samples``, ``metrics``, ``lm_eval``, ``proof``."""
