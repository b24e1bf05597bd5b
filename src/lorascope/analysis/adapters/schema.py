"""Adapter analysis in summary.json: spectrum, truncation, forgetting."""

from lorascope.analysis.section import Interval, Section


class ForgettingSection(Section):
    """Change of one rank's loss on the generic text; below 0, it improved."""

    before: float
    """Loss of the base model."""
    after: float | None
    """Loss after training, first seed."""
    change: float | None
    """After minus before."""
    change_ci95: Interval | None
    """Its 95% paired bootstrap interval over windows of the text."""


class SpectrumSection(Section):
    """Spectrum of a rank's adapter in one kind of module."""

    rank: int
    """LoRA rank r."""
    module: str
    """Last part of the layers' names."""
    layers: int
    """Layers of that kind."""
    effective_rank: float
    """Effective rank of the update, mean over layers."""
    effective_rank_min: float
    """Minimum over layers."""
    effective_rank_max: float
    """Maximum over layers."""
    energy_rank_50: float
    """Singular values that hold half of the update's squared norm, mean over layers."""
    energy_rank_90: float
    """Those that hold 90% of it."""
    energy_rank_99: float
    """Those that hold 99% of it."""


class CutSection(Section):
    """The largest rank's adapter, truncated."""

    rank: int
    """Rank after truncation."""
    eval_loss: float | None
    """Held-out loss of the truncated adapter."""
    excess_loss: float | None
    """That loss minus the whole adapter's."""
    excess_loss_ci95: Interval | None
    """Its 95% paired bootstrap interval over held-out rows."""
    trained_eval_loss: float | None
    """Held-out loss of an adapter trained at this rank, where one was, with the same seed."""


class TruncationSection(Section):
    """The largest rank's adapter truncated to smaller ranks, layer by layer, by singular values."""

    trial_id: str
    """The trial whose adapter was truncated."""
    rank: int
    """Its rank."""
    eval_loss: float
    """Its held-out loss, whole."""
    adequate_rank: int | None
    """Smallest truncated rank whose excess, and that of all larger ones, is below the tolerance with its interval."""
    cuts: tuple[CutSection, ...]
    """The truncated ranks, ascending."""


class GenericTextSection(Section):
    """The text that forgetting was measured on."""

    name: str
    """As the study names it."""
    windows: int
    """Windows that were evaluated."""
    target_tokens: int
    """Their tokens the loss is taken on."""
    text_hash: str
    """Hash of the windows' tokens."""
