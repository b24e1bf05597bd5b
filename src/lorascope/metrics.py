"""Every number lorascope shows: its unit, which way is better, and what it is in one line.

How each is computed stands in docs/numbers.md under the same name.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One kind of number."""

    label: str
    """Title of an axis or a column."""
    unit: str
    """Empty for a count."""
    better: Better
    meaning: str

    @property
    def title(self) -> str:
        """Label and unit, for an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRICS: dict[str, Metric] = {
    "train_loss": Metric(
        label="training loss", unit="nats/token", better="lower", meaning="Mean cross entropy at the end of training."
    ),
    "eval_loss": Metric(
        label="held-out loss", unit="nats/token", better="lower", meaning="Mean cross entropy on rows not trained on."
    ),
    "excess_loss": Metric(
        label="excess over the best rank",
        unit="nats/token",
        better="lower",
        meaning="Held-out loss above that of the rank with the lowest.",
    ),
    "noise_floor": Metric(
        label="noise floor",
        unit="nats/token",
        better="lower",
        meaning="How far apart two seeds of the same rank end in held-out loss.",
    ),
    "base_eval_loss": Metric(
        label="held-out loss of the base model",
        unit="nats/token",
        better="lower",
        meaning="Held-out loss before the first step.",
    ),
    "grad_norm": Metric(
        label="gradient norm",
        unit="nats/token per unit of weight",
        better="neither",
        meaning="Norm of the mean-loss gradient of one adapter before clipping.",
    ),
    "learning_rate": Metric(
        label="learning rate", unit="", better="neither", meaning="AdamW's learning rate at a step; its peak in tables."
    ),
    "rank": Metric(label="rank", unit="", better="neither", meaning="LoRA rank r."),
    "step": Metric(label="step", unit="", better="neither", meaning="Optimizer steps, counted from 1."),
    "trainable_parameters": Metric(
        label="trainable parameters", unit="", better="lower", meaning="Parameters of one adapter."
    ),
    "adapter_bytes": Metric(
        label="adapter size", unit="bytes", better="lower", meaning="Bytes of one adapter's parameters in training."
    ),
    "training_state_bytes": Metric(
        label="training state",
        unit="bytes",
        better="lower",
        meaning="Bytes of one adapter with its gradient and optimizer state.",
    ),
    "step_seconds": Metric(
        label="time of a step", unit="s", better="lower", meaning="Median time of one step of one rank alone."
    ),
    "runtime_seconds": Metric(
        label="runtime", unit="s", better="lower", meaning="Time of all training steps of one rank alone."
    ),
    "tokens_per_second": Metric(
        label="throughput", unit="tokens/s", better="higher", meaning="Tokens through the model of one rank alone."
    ),
    "peak_memory_bytes": Metric(
        label="peak memory", unit="bytes", better="lower", meaning="Highest memory while one rank trained alone."
    ),
    "scale": Metric(
        label="scale", unit="", better="neither", meaning="What the update B A x is multiplied by, from alpha and rank."
    ),
    "stable_step": Metric(
        label="stable from step",
        unit="",
        better="lower",
        meaning="Step from which the training loss stays near its end.",
    ),
    "train_gap": Metric(
        label="training loss above the lowest",
        unit="nats/token",
        better="lower",
        meaning="Training loss at the end above that of the rank with the lowest.",
    ),
    "final_spread": Metric(
        label="spread at the end",
        unit="nats/token",
        better="lower",
        meaning="Standard deviation of the losses of the last tenth of steps.",
    ),
    "loss_gained": Metric(
        label="gained over the base",
        unit="nats/token",
        better="higher",
        meaning="Held-out loss of the base model minus that after training.",
    ),
    "above_largest": Metric(
        label="above the largest rank",
        unit="nats/token",
        better="lower",
        meaning="Held-out loss above that of the largest rank that has one.",
    ),
    "gain": Metric(
        label="gain of a larger rank",
        unit="nats/token",
        better="higher",
        meaning="Held-out loss of a rank minus that of the next larger one.",
    ),
    "gain_per_doubling": Metric(
        label="gain for a doubling",
        unit="nats/token per doubling",
        better="higher",
        meaning="The gain divided by the doublings between the two ranks.",
    ),
    "gain_per_million": Metric(
        label="gain for a million parameters",
        unit="nats/token per million parameters",
        better="higher",
        meaning="The gain divided by the parameters between the two adapters.",
    ),
    "knee": Metric(label="knee", unit="", better="lower", meaning="Rank beyond which no doubling gains the tolerance."),
    "trainable_share": Metric(
        label="trained share", unit="", better="lower", meaning="Adapter's parameters as a share of the base model's."
    ),
    "training_bytes": Metric(
        label="memory of weights and states",
        unit="bytes",
        better="lower",
        meaning="Frozen base, adapter, gradient and optimizer, from counts of parameters.",
    ),
    "full_training_bytes": Metric(
        label="full fine-tuning, predicted",
        unit="bytes",
        better="lower",
        meaning="What weights, gradient and optimizer of full fine-tuning would take.",
    ),
    "memory": Metric(label="memory", unit="MB", better="lower", meaning="Memory sampled while one rank trained alone."),
    "effective_rank": Metric(
        label="effective rank", unit="", better="neither", meaning="Directions that an update uses, by entropy."
    ),
    "energy_rank": Metric(
        label="ranks for a share of the energy",
        unit="",
        better="neither",
        meaning="Singular values that hold a share of an update's squared norm.",
    ),
    "forgetting": Metric(
        label="change on the generic text",
        unit="nats/token",
        better="lower",
        meaning="Loss on a text unlike the rows after training minus that of the base model.",
    ),
    "cut_loss": Metric(
        label="held-out loss when cut",
        unit="nats/token",
        better="lower",
        meaning="Held-out loss of an adapter cut to a smaller rank by singular values.",
    ),
    "step_seconds_spread": Metric(
        label="spread of a step's time",
        unit="s",
        better="lower",
        meaning="Distance between the quartiles of the measured steps of one rank alone.",
    ),
    "phase_memory": Metric(
        label="memory in a phase",
        unit="bytes",
        better="lower",
        meaning="Highest memory in the forward, backward, optimizer step or evaluation of one rank alone.",
    ),
    "bytes_per_rank": Metric(
        label="memory for each rank more",
        unit="bytes",
        better="lower",
        meaning="Slope of a straight line through the memory of the ranks.",
    ),
    "flops_per_byte": Metric(
        label="arithmetic intensity",
        unit="operations/byte",
        better="neither",
        meaning="Operations of a step's matrix products for each byte they move at least.",
    ),
    "process_memory": Metric(
        label="memory of the process", unit="MB", better="lower", meaning="Resident memory sampled over the whole run."
    ),
    "gpu_memory_used": Metric(
        label="GPU memory used", unit="bytes", better="lower", meaning="Memory in use on the device, by all programs."
    ),
    "gpu_utilization": Metric(
        label="GPU utilisation", unit="%", better="neither", meaning="Share of time in which a kernel ran on the GPU."
    ),
}
