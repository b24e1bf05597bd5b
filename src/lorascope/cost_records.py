"""Predictions, solo runs and rates of a device; ``records`` has them with the other records."""

from typing import Literal

from lorascope.record_registry import record

PredictedThing = Literal["alone", "joint", "full"]


@record("predictions", key=("what", "targets", "rank"))
class PredictionRecord:
    """What a step was predicted to cost before anything was measured; its memory is that of the largest pass."""

    what: PredictedThing
    """One rank alone, the first trial group, or full fine-tuning of the base."""
    rank: int
    """0 where it is not about one rank."""
    device: str
    tokens: float
    """Real tokens of the mean step that was predicted, those of all trials together."""
    step_seconds: float
    factor: float
    """What an earlier study corrected it by; 1 without one."""
    step_flops: float
    step_bytes: float
    base_bytes: int
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    rest_bytes: int
    targets: str = ""
    """Name of the rank's set of target modules; empty where the study has one."""

    @property
    def memory_bytes(self) -> int:
        """Add the parts up."""
        held = self.base_bytes + self.adapter_bytes + self.gradient_bytes + self.optimizer_bytes
        return held + self.activation_bytes + self.rest_bytes


@record("solo_runs", key=("targets", "rank", "repeat"), ordered=True)
class SoloRun:
    """One rank alone for a few steps on the study's typical batch; the solo runs of all ranks alternate.

    Memory is resident memory of the process on a CPU, and what Torch allocated on a GPU, without the initial factors of
    other ranks (PiSSA, OLoRA)."""

    rank: int
    repeat: int
    """Counted from 0 for each rank."""
    step_seconds: tuple[float, ...]
    """Every step, warm-up first; all but the last repeat's warm-up are on the typical batch."""
    warmup_steps: int
    """How many of them are warm-up."""
    step_tokens: tuple[int, ...]
    """Real tokens of each of them."""
    cpu_seconds: float
    """Processor time that the process used in the measured steps, those after the warm-up."""
    base_bytes: int
    """Memory before the rank's adapter was made."""
    forward_peak_bytes: int
    backward_peak_bytes: int
    optimizer_peak_bytes: int
    evaluation_peak_bytes: int | None
    """Of a micro-batch of held-out rows, taken in a rank's last repeat; None in the others."""
    held_bytes: int
    """Memory after the last step: activations are gone; adapter, gradient and optimizer state are there."""
    after_bytes: int
    """Memory after all of it was given back."""
    reserved_peak_bytes: int | None
    memory_method: str
    """Source of the peaks: ``allocator``, ``kernel``, or ``sampled`` where only readings in time are to be had."""
    samples_bytes: tuple[int, ...]
    """Memory read every 20 ms."""
    warmup_samples: int
    heaviest_tokens: int | None
    """Tokens of the study's heaviest step, the warm-up of a rank's last repeat; None in the others."""
    activation_bytes: int | None
    """Tensors that this step's largest micro-batch saved for its backward; None in the other repeats."""
    product_flops: int | None
    """Operations of the matrix products of a typical step, counted in the warm-up of a rank's first repeat."""
    product_bytes: int | None
    """Bytes of these products' operands and results, each moved once."""
    targets: str = ""
    """Name of its set of target modules; empty where the study has one."""

    @property
    def arm(self) -> tuple[str, int]:
        """Set of target modules and rank."""
        return self.targets, self.rank

    @property
    def measured_seconds(self) -> tuple[float, ...]:
        """Seconds of the measured steps."""
        return self.step_seconds[self.warmup_steps :]

    @property
    def peak_bytes(self) -> int:
        """Peak memory of a training step; an evaluation's is apart."""
        return max(self.forward_peak_bytes, self.backward_peak_bytes, self.optimizer_peak_bytes)


@record("machine_rates", key=())
class MachineRates:
    """What the device did of the simplest work when costs were measured."""

    dtype: str
    flops_per_second: float
    """Of a large matrix product in the base's precision."""
    bytes_per_second: float
    """Of a copy that no cache holds, read and written bytes together."""
