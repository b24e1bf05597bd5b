"""Costs in summary.json: each rank alone, its memory by part, the joint run, the process."""

from typing import Literal

from lorascope.analysis.section import Section
from lorascope.message import Message
from lorascope.search.work import Activity, Overhead

Phase = Literal["forward", "backward", "optimizer", "evaluation", "held"]
Bottleneck = Literal["arithmetic", "bandwidth", "overhead"]


class MemorySplitSection(Section):
    """Memory of one phase by part, in bytes; the phase ``held`` is the time after a step."""

    phase: Phase
    """The phase."""
    total: int
    """Peak memory of the phase; memory in use for ``held``."""
    program: int
    """Memory before the adapter was made, without the base's weights: program, libraries and their caches."""
    base: int
    """Weights of the frozen base."""
    adapter: int
    """Weights of the adapter."""
    gradient: int
    """Gradient of the adapter."""
    optimizer: int
    """AdamW's averages."""
    activations: int
    """Tensors that the largest micro-batch of the heaviest step saved for its backward."""
    rest: int
    """The total without all of these: temporary results, and freed memory that an allocator keeps."""


class CostSection(Section):
    """Cost of one rank alone, from solo runs that alternate with those of the other ranks."""

    turns: int
    """Solo runs."""
    measured_steps: int
    """Steps measured in them, without the warm-up."""
    turn_step_seconds: tuple[float, ...]
    """Median time of a step in each solo run, in their order."""
    step_seconds_spread: float | None
    """Interquartile range of the measured steps' times; null with one step."""
    warmup_seconds: float
    """Median time of the warm-up steps."""
    tokens_per_step: int
    """Tokens of the measured step, the same for all ranks."""
    cpu_utilization: float | None
    """Share of the machine's usable cores that the measured steps kept busy."""
    memory_method: str
    """Source of the peaks: Torch's ``allocator``, the ``kernel``, or ``sampled`` readings in time."""
    heaviest_tokens: int | None
    """Tokens of the study's heaviest step, whose memory is in the peaks."""
    split: tuple[MemorySplitSection, ...]
    """The memory of each phase and its parts; empty where sizes are not known."""
    left_behind_bytes: int
    """Memory after the rank's last solo run minus memory before it."""
    flops_per_step: int | None
    """Operations of the matrix products of the measured step."""
    bytes_per_step: int | None
    """Bytes of their operands and results, each moved once."""
    flops_per_byte: float | None
    """Arithmetic intensity: the first divided by the second."""
    arithmetic_share: float | None
    """Share of the step that these products take at the rate of a large one."""
    bandwidth_share: float | None
    """Share of the step that moving these bytes takes at the rate of a large copy."""
    bottleneck: Bottleneck | None
    """Explanation of half of the step or more: arithmetic or bandwidth; overhead where neither is one."""


class GpuSection(Section):
    """The GPU during the rank's solo runs: NVIDIA's counters, and Torch's allocator."""

    name: str
    """Name of the device, from its driver."""
    readings: int
    """Readings in time."""
    memory_used_bytes: int | None
    """Memory used on the device by all programs, mean."""
    memory_used_max_bytes: int | None
    """The maximum."""
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
    """Reasons for lower clocks at any reading, idling left out."""
    allocated_bytes: int
    """Torch's allocation after a step."""
    peak_allocated_bytes: int
    """Peak of Torch's allocation."""
    peak_reserved_bytes: int | None
    """Peak of the memory that Torch's allocator reserved."""


class GrowthSection(Section):
    """Growth of one phase's memory with the rank: a straight line through the ranks, above the base."""

    phase: Phase
    """The phase."""
    fixed_bytes: float
    """Intercept at rank 0: the part that does not grow."""
    bytes_per_rank: float
    """Slope: bytes for each rank more."""
    counted_bytes_per_rank: float
    """Bytes of adapter, gradient and optimizer that one more rank adds, counted from their tensors."""


class JointSection(Section):
    """Time and memory of all trials together; the time of a single rank cannot be derived from it."""

    seconds: float
    """Wall time of all joint steps: of groups that train at once, of all of them together."""
    evaluation_seconds: float
    """Wall time of all held-out evaluations."""
    alone_seconds: float | None
    """Predicted time of the same steps one trial after the other; null where a rank was not measured."""
    peak_rss_bytes: int | None
    """Highest reading of the process's memory in the whole run."""


class ProcessSection(Section):
    """The process over the whole run, read every second."""

    readings: int
    """Number of readings."""
    rss_mean: float
    """Mean resident memory, MB (10^6 bytes)."""
    rss_std: float
    """Its standard deviation."""
    rss_min: float
    """Its minimum."""
    rss_max: float
    """Its maximum."""
    rss_start_spike: float | None
    """Rise of the first tenth of the readings above all later ones; null where it does not stand out."""
    rss_later_std: float | None
    """Standard deviation of the later nine tenths."""
    cpu_percent: float
    """Mean use of the processor, of one core."""
    traffic_bytes_per_second: float | None
    """Bytes between processors and memory in a second, of the whole machine; null where it does not count them."""
    traffic_text: Message
    """The same as a sentence, or that this machine has no such reading."""


class CostReadingsSection(Section):
    """Findings from the measurements."""

    steadiest_time_rank: int | None
    """Rank whose steps vary least in time, as a share of their median; null where it is unknown."""
    steadiest_memory_rank: int | None
    """Rank whose memory varies least after its warm-up, as a share of its mean."""
    bandwidth_rank: int | None
    """Rank with the largest share of memory bandwidth; null where solo runs of one rank differ by more."""
    texts: tuple[Message, ...]
    """A sentence for each of these, and for each rank's bottleneck."""


class ActivitySection(Section):
    """Time of one kind of work, over all starts of the study."""

    name: Activity | Overhead
    """``preparation`` (loading and checks), ``predictions`` (of costs), ``solo_runs``, ``training``, ``evaluation``
    (held-out rows, while training), ``looks`` (of a sequential study), ``further_rows`` (held-out rows that looks asked
    for), ``spectra`` (singular values), ``forgetting_text``, ``truncation``, ``samples`` (texts beside each other)
    or ``proof`` (losses with PEFT)."""
    predicted_seconds: float | None
    """Prediction of all of it, made when its pace was first known; null where it never was."""
    spent_seconds: float
    """Time that it took."""


class CostsSection(Section):
    """Comparison of the ranks' costs, and the run as a whole."""

    machine_flops_per_second: float | None
    """Operations a second of a large matrix product in the base's precision."""
    machine_bytes_per_second: float | None
    """Bytes a second of a large copy, read and written."""
    growth: tuple[GrowthSection, ...]
    """Growth of each phase's memory with the rank; empty with one rank."""
    joint: JointSection | None
    """The joint run; null before its first step."""
    process: ProcessSection | None
    """The process over time; null without readings."""
    readings: CostReadingsSection | None
    """Findings from the measurements; null without any."""
