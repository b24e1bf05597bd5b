"""What the summary says of how an adapter was used, cut, and what it made the model forget."""

from lorascope.analysis.section import Interval, Section


class ForgettingSection(Section):
    """What one rank lost on the generic text; below 0, it gained."""

    before: float
    """Loss of the base model."""
    after: float | None
    """Loss after training, first seed."""
    change: float | None
    """After minus before."""
    change_ci95: Interval | None
    """Its 95% paired bootstrap interval over windows of the text."""


class SpectrumSection(Section):
    """How much of a rank the adapter uses in one kind of module: numbers of layers, and their mean over them."""

    rank: int
    """LoRA rank r."""
    module: str
    """Last part of the layers' names."""
    layers: int
    """Layers of that kind."""
    effective_rank: float
    """Effective rank of the update, mean over layers."""
    effective_rank_min: float
    """The lowest of a layer."""
    effective_rank_max: float
    """The highest of a layer."""
    energy_rank_50: float
    """Singular values that hold half of the update's squared norm, mean over layers."""
    energy_rank_90: float
    """Those that hold 90% of it."""
    energy_rank_99: float
    """Those that hold 99% of it."""


class CutSection(Section):
    """The largest rank's adapter, cut."""

    rank: int
    """Rank it was cut to."""
    eval_loss: float | None
    """Held-out loss of the cut adapter."""
    excess_loss: float | None
    """That loss above the whole adapter's."""
    excess_loss_ci95: Interval | None
    """Its 95% paired bootstrap interval over held-out rows."""
    trained_eval_loss: float | None
    """Held-out loss of an adapter trained at this rank, where one was, with the same seed."""


class TruncationSection(Section):
    """The largest rank's adapter cut to smaller ranks, layer by layer, by singular values."""

    trial_id: str
    """The trial whose adapter was cut."""
    rank: int
    """Its rank."""
    eval_loss: float
    """Its held-out loss, whole."""
    adequate_rank: int | None
    """Smallest cut whose excess, and that of all larger ones, lies below the tolerance with its whole interval."""
    cuts: tuple[CutSection, ...]
    """The cuts, ascending."""


class GenericTextSection(Section):
    """The text on which forgetting was measured."""

    name: str
    """As the study names it."""
    windows: int
    """Windows that were read."""
    target_tokens: int
    """Their tokens the loss is taken on."""
    text_hash: str
    """Hash of the windows' tokens."""
