"""Predicted and measured costs in summary.json."""

from lorascope.analysis.section import Section


class PredictedValueSection(Section):
    """A prediction and its measurement."""

    predicted: float
    """Value predicted before anything was measured."""
    measured: float | None
    """Measured value; null without one."""
    error: float | None
    """The prediction divided by the measurement, minus 1; null without a measurement."""


class PredictedSplitSection(Section):
    """Predicted peak memory of a step by part, in bytes."""

    base_bytes: int
    """Weights of the frozen base."""
    adapter_bytes: int
    """The adapter's weights; in full fine-tuning all weights, with their copy in 16 bits."""
    gradient_bytes: int
    """Gradients."""
    optimizer_bytes: int
    """AdamW's two averages."""
    activation_bytes: int
    """Tensors that the largest micro-batch saves for its backward."""
    rest_bytes: int
    """Program, libraries, rows."""


class PredictedCostSection(Section):
    """Predicted and measured cost of a rank, of the first trial group, or of full fine-tuning."""

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
    """Predictions made before anything was measured, and the measurements."""

    device: str
    """Name of the device in calibrations."""
    factor: float
    """Correction of times from an earlier study on this device; 1 without one."""
    ranks: tuple[PredictedCostSection, ...]
    """Every rank alone, ascending."""
    ratio_error: float | None
    """Largest error of the ratio of two ranks' step times; null with fewer than two measured."""
    joint: PredictedCostSection | None
    """The first trial group."""
    full_fine_tuning: PredictedCostSection | None
    """Full fine-tuning of the base in float32; it was not run."""
