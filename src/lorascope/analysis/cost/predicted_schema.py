"""The parts of summary.json that hold predictions beside what was measured."""

from lorascope.analysis.section import Section


class PredictedValueSection(Section):
    """A prediction beside its measurement."""

    predicted: float
    """As it was predicted before anything was measured."""
    measured: float | None
    """As it was measured; null where it was not."""
    error: float | None
    """The prediction divided by the measurement, minus 1; null without a measurement."""


class PredictedSplitSection(Section):
    """Bytes at the predicted peak of a step, by what holds them."""

    base_bytes: int
    """Weights of the frozen base."""
    adapter_bytes: int
    """The adapter's weights; in full fine-tuning all weights, with their copy in 16 bits."""
    gradient_bytes: int
    """Gradients."""
    optimizer_bytes: int
    """AdamW's two averages."""
    activation_bytes: int
    """What the largest pass keeps for its way back."""
    rest_bytes: int
    """Program, libraries, rows."""


class PredictedCostSection(Section):
    """What something was predicted to cost."""

    rank: int | None
    """LoRA rank r; null for what is not about one rank."""
    flops_per_token: float
    """Operations of a step divided by its tokens."""
    bytes_per_step: float
    """Bytes through memory in a step."""
    step_seconds: PredictedValueSection
    """Time of a step."""
    peak_memory_bytes: PredictedValueSection
    """Highest memory."""
    memory_split: PredictedSplitSection
    """That memory by parts."""


class PredictedSection(Section):
    """What was predicted before anything was measured, beside what then was."""

    device: str
    """The device as calibrations know it."""
    factor: float
    """What an earlier study on this device corrected times by; 1 without one."""
    ranks: tuple[PredictedCostSection, ...]
    """Every rank alone, ascending."""
    ratio_error: float | None
    """Largest error of the ratio of two ranks' step times; null with fewer than two measured."""
    joint: PredictedCostSection | None
    """The first pack, all its trials at once."""
    full_fine_tuning: PredictedCostSection | None
    """Full fine-tuning of the base in float32; it was not run."""
