"""Readings in summary.json: what people take from a study's charts, computed."""

from lorascope.analysis.section import Section
from lorascope.message import Sentences


class RankReadingSection(Section):
    """Readings from one rank's curve and sizes."""

    rank: int
    """LoRA rank r."""
    stable_step: int | None
    """Step from which the training loss stays in its convergence band."""
    train_gap: float | None
    """Training loss at the end above that of the rank with the lowest."""
    final_spread: float | None
    """Standard deviation of the losses of the last tenth of steps."""
    loss_gained: float | None
    """Held-out loss of the base model minus that of the rank."""
    excess_over_largest: float | None
    """Held-out loss above that of the largest rank that has one."""
    excess_over_largest_ci95: tuple[float, float] | None
    """Its paired 95% interval."""
    trainable_share: float | None
    """Parameters of the adapter as a share of the base model's."""
    training_bytes: int | None
    """Frozen base, adapter, gradient and optimizer, from counts of parameters."""


class DoublingSection(Section):
    """Gain of the next larger rank."""

    smaller: int
    """The smaller rank."""
    larger: int
    """The larger rank."""
    gain: float
    """Held-out loss of the smaller rank minus that of the larger."""
    gain_ci95: tuple[float, float]
    """Its paired 95% interval."""
    gain_per_doubling: float
    """The gain for each doubling of the rank."""
    gain_per_million: float | None
    """The gain for each million parameters."""


class GridSection(Section):
    """One rank at one alpha and learning rate."""

    rank: int
    """LoRA rank r."""
    lora_alpha: float
    """LoRA alpha."""
    learning_rate: float
    """Peak learning rate."""
    train_loss: float | None
    """Training loss at the end, mean over the seeds that have one."""
    eval_loss: float | None
    """Held-out loss, mean over the seeds that have one."""
    outcome: str
    """Outcome of its trials: that of the first seed that did not finish, if any."""


class OrderSection(Section):
    """Ranks at one learning rate, lowest loss first."""

    learning_rate: float
    """The learning rate."""
    step: int
    """The last step at which all ranks have a held-out loss at that rate."""
    by_train_loss: tuple[int, ...]
    """Ranks by training loss at that step."""
    by_eval_loss: tuple[int, ...]
    """Ranks by held-out loss at that step."""


class NaiveSection(Section):
    """Conclusion of the usual script: one learning rate, training loss, no intervals."""

    orders: tuple[OrderSection, ...]
    """One for each learning rate that all ranks were trained at, most steps first; the first is the script's."""
    at_best_rates: tuple[int, ...]
    """Ranks by held-out loss, each at its own best learning rate, lowest first."""
    rank: int | None
    """The rank with the lowest training loss at the script's learning rate."""
    text: Sentences
    """The naive reading, and where the study's own differs."""


class ReadingsSection(Section):
    """Readings that people take from a study's charts, computed."""

    alpha: Sentences
    """Effect of the alpha rule on the comparison."""
    naive: NaiveSection
    """Conclusion of the usual script."""
    ranks: tuple[RankReadingSection, ...]
    """Every rank, ascending."""
    doublings: tuple[DoublingSection, ...]
    """Neighbouring ranks with a held-out loss, ascending."""
    knee: int | None
    """The rank beyond which no step gains the tolerance for each doubling."""
    knee_text: Sentences
    """The knee as a sentence."""
    full_training_bytes: int | None
    """Weights, gradient and optimizer of full fine-tuning: a prediction."""
    balance: Sentences
    """Gains and costs of LoRA in this study."""
    grid: tuple[GridSection, ...]
    """Every rank at every learning rate it was trained with."""
