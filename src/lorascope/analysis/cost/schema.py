"""What the summary says of costs: each rank alone, the memory's parts, the joint run beside them."""

from typing import Literal

from lorascope.analysis.section import Section
from lorascope.message import Message

Phase = Literal["forward", "backward", "optimizer", "evaluation", "held"]
Bottleneck = Literal["arithmetic", "bandwidth", "overhead"]


class MemorySplitSection(Section):
    """What the memory of one phase was made of, in bytes; the phase ``held`` is after a step."""

    phase: Phase
    """The phase."""
    total: int
    """Highest memory in it; of ``held`` what was there."""
    program: int
    """What was there before the adapter without the base's weights: program, libraries and what they keep."""
    base: int
    """Weights of the frozen base."""
    adapter: int
    """Weights of the adapter."""
    gradient: int
    """Gradient of the adapter."""
    optimizer: int
    """AdamW's averages."""
    activations: int
    """What the largest pass of the heaviest step saved for its backward."""
    rest: int
    """The total without all of these: results in passing, and what an allocator keeps of what was freed."""


class CostSection(Section):
    """One rank alone, measured in short turns that alternate with the other ranks'."""

    turns: int
    """Turns taken."""
    measured_steps: int
    """Steps measured in them, warm-up left out."""
    turn_step_seconds: tuple[float, ...]
    """Median time of a step in each turn, in their order."""
    step_seconds_spread: float | None
    """Distance between the quartiles of the measured steps' times; null with one."""
    warmup_seconds: float
    """Median time of the warm-up steps."""
    tokens_per_step: int
    """Tokens of the measured step, the same for all ranks."""
    cpu_utilization: float | None
    """Share of the machine's usable cores that the measured steps kept busy."""
    memory_method: str
    """Who says how high a peak was: Torch's ``allocator``, the ``kernel``, or ``sampled`` readings in time."""
    heaviest_tokens: int | None
    """Tokens of the study's heaviest step, whose memory is in the peaks."""
    split: tuple[MemorySplitSection, ...]
    """The memory of each phase and its parts; empty where sizes are not known."""
    left_behind_bytes: int
    """Memory after the rank's last turn above that before it."""
    flops_per_step: int | None
    """Operations of the matrix products of the measured step."""
    bytes_per_step: int | None
    """Bytes of their operands and results, each moved once."""
    flops_per_byte: float | None
    """The first divided by the second: the lower, the more the rank leans on memory bandwidth."""
    arithmetic_share: float | None
    """Share of the step that these products take at the rate of a large one."""
    bandwidth_share: float | None
    """Share of the step that moving these bytes takes at the rate of a large copy."""
    bottleneck: Bottleneck | None
    """What explains half of the step or more: arithmetic or bandwidth; overhead where neither does."""


class GpuSection(Section):
    """The GPU while the rank ran alone: NVIDIA's counters, and Torch's allocator."""

    name: str
    """The device as its driver calls it."""
    readings: int
    """Readings in time."""
    memory_used_bytes: int | None
    """Memory used on the device by all programs, mean."""
    memory_used_max_bytes: int | None
    """The most."""
    memory_used_percent: float | None
    """The mean as a share of the device's memory."""
    utilization_percent: float | None
    """Share of time in which a kernel ran, mean."""
    memory_utilization_percent: float | None
    """Share of time in which device memory was read or written, mean."""
    power_watts: float | None
    """Power drawn, mean."""
    sm_clock_mhz: float | None
    """Clock of the multiprocessors, mean."""
    memory_clock_mhz: float | None
    """Clock of the memory, mean."""
    temperature_celsius: float | None
    """Temperature, the highest."""
    throttle_reasons: tuple[str, ...]
    """What held the clocks down at any reading, idling left out."""
    allocated_bytes: int
    """Torch's allocation after a step."""
    peak_allocated_bytes: int
    """The most that Torch allocated."""
    peak_reserved_bytes: int | None
    """The most that Torch's allocator had reserved."""


class GrowthSection(Section):
    """How one phase's memory grows with the rank: a straight line through the ranks, without what was there before."""

    phase: Phase
    """The phase."""
    fixed_bytes: float
    """Where the line meets rank 0: what does not grow."""
    bytes_per_rank: float
    """Its slope: bytes for each rank more."""
    counted_bytes_per_rank: float
    """What adapter, gradient and optimizer take for each rank, counted from their tensors."""


class JointSection(Section):
    """What all trials took together: a rank's own time cannot be read from it."""

    seconds: float
    """Time of all joint steps."""
    evaluation_seconds: float
    """Time of all held-out evaluations."""
    alone_seconds: float | None
    """What as many steps of every trial would take one rank after the other; null where a rank was not measured."""
    peak_rss_bytes: int | None
    """Highest reading of the process's memory in the whole run."""


class ProcessSection(Section):
    """The process over the whole run, read every second."""

    readings: int
    """Readings."""
    rss_mean: float
    """Mean resident memory, MB (10^6 bytes)."""
    rss_std: float
    """Its standard deviation."""
    rss_min: float
    """The lowest."""
    rss_max: float
    """The highest."""
    rss_start_spike: float | None
    """How far the first tenth of the readings rises above all later ones; null where it does not stand out."""
    rss_later_std: float | None
    """Standard deviation of the later nine tenths."""
    cpu_percent: float
    """Mean use of the processor, of one core."""
    traffic_bytes_per_second: float | None
    """Bytes between processors and memory in a second, of the whole machine; null where it does not count them."""
    traffic_text: Message
    """The same in words, or that this machine offers no such reading."""


class CostReadingsSection(Section):
    """What the measurements say, in words."""

    steadiest_time_rank: int | None
    """Rank whose steps differ least in time, as a share of their median; null if too few or too unlike."""
    steadiest_memory_rank: int | None
    """Rank whose memory varies least after its warm-up, as a share of its mean."""
    bandwidth_rank: int | None
    """Rank that leans most on memory bandwidth; null where turns of one rank differ by more."""
    texts: tuple[Message, ...]
    """A sentence for each of these and for the bottleneck."""


class CostsSection(Section):
    """What the ranks cost beside each other, and the run as a whole."""

    machine_flops_per_second: float | None
    """Operations a second of a large matrix product in the base's precision."""
    machine_bytes_per_second: float | None
    """Bytes a second of a large copy, read and written."""
    growth: tuple[GrowthSection, ...]
    """How the memory of each phase grows with the rank; empty with one rank."""
    joint: JointSection | None
    """The joint run; null before its first step."""
    process: ProcessSection | None
    """The process over time; null without readings."""
    readings: CostReadingsSection | None
    """What the measurements say; null without any."""
