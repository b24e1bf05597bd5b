"""Every number lorascope shows: its unit, which way is better, and what it is in one line.

How each is computed stands in docs/numbers.md under the same name.
"""

from dataclasses import dataclass
from typing import Literal

from lorascope.text.language import later, tr

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One kind of number."""

    label: str
    """Title of an axis or a column, in English."""
    unit: str
    """In English; empty for a count."""
    better: Better
    meaning: str

    @property
    def title(self) -> str:
        """Label and unit, for an axis, in the language in use."""
        return f"{tr(self.label)} ({tr(self.unit)})" if self.unit else tr(self.label)


METRICS: dict[str, Metric] = {
    "train_loss": Metric(
        label=later("training loss"),
        unit=later("nats/token"),
        better="lower",
        meaning="Mean cross entropy at the end of training.",
    ),
    "eval_loss": Metric(
        label=later("held-out loss"),
        unit=later("nats/token"),
        better="lower",
        meaning="Mean cross entropy on rows not trained on.",
    ),
    "excess_loss": Metric(
        label=later("excess over the best rank"),
        unit=later("nats/token"),
        better="lower",
        meaning="Held-out loss above that of the rank with the lowest.",
    ),
    "noise_floor": Metric(
        label=later("noise floor"),
        unit=later("nats/token"),
        better="lower",
        meaning="How far apart two seeds of the same rank end in held-out loss.",
    ),
    "base_eval_loss": Metric(
        label=later("held-out loss of the base model"),
        unit=later("nats/token"),
        better="lower",
        meaning="Held-out loss before the first step.",
    ),
    "grad_norm": Metric(
        label=later("gradient norm"),
        unit=later("nats/token per unit of weight"),
        better="neither",
        meaning="Norm of the mean-loss gradient of one adapter before clipping.",
    ),
    "learning_rate": Metric(
        label=later("learning rate"),
        unit="",
        better="neither",
        meaning="AdamW's learning rate at a step; its peak in tables.",
    ),
    "rank": Metric(label=later("rank"), unit="", better="neither", meaning="LoRA rank r."),
    "step": Metric(label=later("step"), unit="", better="neither", meaning="Optimizer steps, counted from 1."),
    "trainable_parameters": Metric(
        label=later("trainable parameters"), unit="", better="lower", meaning="Parameters of one adapter."
    ),
    "adapter_bytes": Metric(
        label=later("adapter size"),
        unit=later("bytes"),
        better="lower",
        meaning="Bytes of one adapter's parameters in training.",
    ),
    "training_state_bytes": Metric(
        label=later("training state"),
        unit=later("bytes"),
        better="lower",
        meaning="Bytes of one adapter with its gradient and optimizer state.",
    ),
    "step_seconds": Metric(
        label=later("time of a step"),
        unit=later("s"),
        better="lower",
        meaning="Median time of one step of one rank alone.",
    ),
    "runtime_seconds": Metric(
        label=later("runtime"),
        unit=later("s"),
        better="lower",
        meaning="Time of all training steps of one rank alone.",
    ),
    "tokens_per_second": Metric(
        label=later("throughput"),
        unit=later("tokens/s"),
        better="higher",
        meaning="Tokens through the model of one rank alone.",
    ),
    "peak_memory_bytes": Metric(
        label=later("peak memory"),
        unit=later("bytes"),
        better="lower",
        meaning="Highest memory while one rank trained alone.",
    ),
    "scale": Metric(
        label=later("scale"),
        unit="",
        better="neither",
        meaning="What the update B A x is multiplied by, from alpha and rank.",
    ),
    "stable_step": Metric(
        label=later("stable from step"),
        unit="",
        better="lower",
        meaning="Step from which the training loss stays near its end.",
    ),
    "train_gap": Metric(
        label=later("training loss above the lowest"),
        unit=later("nats/token"),
        better="lower",
        meaning="Training loss at the end above that of the rank with the lowest.",
    ),
    "final_spread": Metric(
        label=later("spread at the end"),
        unit=later("nats/token"),
        better="lower",
        meaning="Standard deviation of the losses of the last tenth of steps.",
    ),
    "loss_gained": Metric(
        label=later("gained over the base"),
        unit=later("nats/token"),
        better="higher",
        meaning="Held-out loss of the base model minus that after training.",
    ),
    "excess_over_largest": Metric(
        label=later("above the largest rank"),
        unit=later("nats/token"),
        better="lower",
        meaning="Held-out loss above that of the largest rank that has one.",
    ),
    "gain": Metric(
        label=later("gain of a larger rank"),
        unit=later("nats/token"),
        better="higher",
        meaning="Held-out loss of a rank minus that of the next larger one.",
    ),
    "gain_per_doubling": Metric(
        label=later("gain for a doubling"),
        unit=later("nats/token per doubling"),
        better="higher",
        meaning="The gain divided by the doublings between the two ranks.",
    ),
    "gain_per_million": Metric(
        label=later("gain for a million parameters"),
        unit=later("nats/token per million parameters"),
        better="higher",
        meaning="The gain divided by the parameters between the two adapters.",
    ),
    "knee": Metric(
        label=later("knee"), unit="", better="lower", meaning="Rank beyond which no doubling gains the tolerance."
    ),
    "trainable_share": Metric(
        label=later("trained share"),
        unit="",
        better="lower",
        meaning="Adapter's parameters as a share of the base model's.",
    ),
    "training_bytes": Metric(
        label=later("memory of weights and states"),
        unit=later("bytes"),
        better="lower",
        meaning="Frozen base, adapter, gradient and optimizer, from counts of parameters.",
    ),
    "full_training_bytes": Metric(
        label=later("full fine-tuning, predicted"),
        unit=later("bytes"),
        better="lower",
        meaning="What weights, gradient and optimizer of full fine-tuning would take.",
    ),
    "memory": Metric(
        label=later("memory"),
        unit=later("MB"),
        better="lower",
        meaning="Memory sampled while one rank trained alone.",
    ),
    "effective_rank": Metric(
        label=later("effective rank"), unit="", better="neither", meaning="Directions that an update uses, by entropy."
    ),
    "energy_rank": Metric(
        label=later("ranks for a share of the energy"),
        unit="",
        better="neither",
        meaning="Singular values that hold a share of an update's squared norm.",
    ),
    "forgetting": Metric(
        label=later("change on the generic text"),
        unit=later("nats/token"),
        better="lower",
        meaning="Loss on a text unlike the rows after training minus that of the base model.",
    ),
    "truncated_loss": Metric(
        label=later("held-out loss when cut"),
        unit=later("nats/token"),
        better="lower",
        meaning="Held-out loss of an adapter cut to a smaller rank by singular values.",
    ),
    "flops_per_token": Metric(
        label=later("operations for a token"),
        unit=later("FLOP/token"),
        better="lower",
        meaning="Additions and multiplications of a training step divided by its tokens.",
    ),
    "bytes_per_step": Metric(
        label=later("bytes moved in a step"),
        unit=later("bytes"),
        better="lower",
        meaning="Bytes that a training step reads and writes, by the cost model.",
    ),
    "step_seconds_spread": Metric(
        label=later("spread of a step's time"),
        unit=later("s"),
        better="lower",
        meaning="Distance between the quartiles of the measured steps of one rank alone.",
    ),
    "phase_memory": Metric(
        label=later("memory in a phase"),
        unit=later("bytes"),
        better="lower",
        meaning="Highest memory in the forward, backward, optimizer step or evaluation of one rank alone.",
    ),
    "bytes_per_rank": Metric(
        label=later("memory for each rank more"),
        unit=later("bytes"),
        better="lower",
        meaning="Slope of a straight line through the memory of the ranks.",
    ),
    "flops_per_byte": Metric(
        label=later("arithmetic intensity"),
        unit=later("operations/byte"),
        better="neither",
        meaning="Operations of a step's matrix products for each byte they move at least.",
    ),
    "process_memory": Metric(
        label=later("memory of the process"),
        unit=later("MB"),
        better="lower",
        meaning="Resident memory sampled over the whole run.",
    ),
    "gpu_memory_used": Metric(
        label=later("GPU memory used"),
        unit=later("bytes"),
        better="lower",
        meaning="Memory in use on the device, by all programs.",
    ),
    "gpu_utilization": Metric(
        label=later("GPU utilisation"),
        unit=later("%"),
        better="neither",
        meaning="Share of time in which a kernel ran on the GPU.",
    ),
}
