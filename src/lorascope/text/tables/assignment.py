"""Tables of the answer sheet: LoRA's settings, losses, runtime, memory and memory access of each rank."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lorascope.analysis.cost.schema import GpuSection, ProcessSection
from lorascope.analysis.readings_schema import RankReadingSection
from lorascope.analysis.summary import MemorySection, RankSection, StudySummary
from lorascope.text.language import tr
from lorascope.text.metrics import metric_label
from lorascope.text.numbers import format_seconds
from lorascope.text.tables.overview import unsteady_mark
from lorascope.text.tables.ranks import excess_with_interval
from lorascope.text.tables.table import NONE, Table, drop_empty, loss_cell, make_table, optional
from lorascope.units import format_bytes

Pair = tuple[RankSection, RankReadingSection]
RankCell = Callable[[RankSection, RankReadingSection], str]
Readings = tuple[str, float, float, float, float, float | None]
"""Name, then mean, standard deviation, minimum, maximum and rise at the start, in MB."""


def adapter_table(summary: StudySummary) -> Table:
    """Show rank, alpha, scale and size of each adapter."""
    return _by_rank(
        summary,
        (tr("alpha"), lambda part, _: optional(part.lora_alpha, "{:g}".format)),
        (tr("scale"), lambda part, _: optional(part.scale, "{:.4g}".format)),
        (tr("trained parameters"), lambda part, _: optional(part.trainable_parameters, "{:,}".format)),
        (tr("share of the base's parameters"), lambda _, read: optional(read.trainable_share, "{:.2%}".format)),
        (tr("adapter"), lambda part, _: optional(part.adapter_bytes, format_bytes)),
        (tr("adapter, gradient and optimizer"), lambda part, _: optional(part.training_state_bytes, format_bytes)),
    )


def loss_table(summary: StudySummary) -> Table:
    """Show when each rank's training loss settles, its final losses and how far they are above the lowest."""
    steps = summary.study.total_steps

    def settled(_: RankSection, reading: RankReadingSection) -> str:
        if reading.stable_step is None:
            return tr("not settled") if summary.study.complete else NONE
        return tr("{step} of {steps}", step=reading.stable_step, steps=steps)

    return _by_rank(
        summary,
        (tr("training loss settles at step"), settled),
        (tr("final training loss"), lambda part, _: loss_cell(part.train_loss)),
        (tr("training loss above the lowest"), lambda _, read: loss_cell(read.train_gap)),
        (tr("spread at the end"), lambda _, read: loss_cell(read.final_spread)),
        (metric_label("eval_loss"), lambda part, _: loss_cell(part.eval_loss)),
        (tr("held-out loss above the lowest (95%)"), lambda part, _: excess_with_interval(part)),
        note=tr(
            "Losses in nats per token, each rank at its best learning rate. A training loss settles at the step from "
            "which on its average stays within {zone}% of its final level. Training losses have no interval: held-out "
            "rows decide.",
            zone=f"{100 * summary.study.convergence_band:g}",
        ),
    )


def runtime_table(summary: StudySummary) -> Table:
    """Show the time of each rank, trained by itself; no rows where it was not measured."""
    mark = unsteady_mark(summary)
    if all(part.step_seconds is None for part in summary.ranks):
        return Table(header=(), rows=(), ranks=())

    def timed(seconds: float | None) -> str:
        return optional(seconds, lambda value: format_seconds(value) + mark)

    note = tr("Each rank trained by itself. The whole run is the number of steps times the median step.")
    if mark:
        note = f"{note} {tr('? Times are unreliable: the machine was busy or changed its pace.')}"
    return _by_rank(
        summary,
        (tr("step"), lambda part, _: timed(part.step_seconds)),
        (tr("whole run"), lambda part, _: timed(part.runtime_seconds)),
        (tr("tokens/s"), lambda part, _: optional(part.tokens_per_second, lambda value: f"{value:,.0f}{mark}")),
        note=note,
    )


def gpu_table(summary: StudySummary) -> Table:
    """Show the memory that each rank took on the GPU, trained by itself; no rows without readings."""
    known = _on_gpu(summary)
    return make_table(
        known,
        [rank for rank, _ in known],
        (tr("rank"), lambda row: str(row[0])),
        (tr("allocated after a step"), lambda row: format_bytes(row[1].allocated_bytes)),
        (tr("highest allocated"), lambda row: format_bytes(row[1].peak_allocated_bytes)),
        (tr("highest reserved"), lambda row: optional(row[1].peak_reserved_bytes, format_bytes)),
        (tr("in use on the device, mean"), lambda row: optional(row[1].memory_used_bytes, format_bytes)),
        (tr("highest"), lambda row: optional(row[1].memory_used_max_bytes, format_bytes)),
        (tr("share of the device"), lambda row: optional(row[1].memory_used_percent, "{:.1f}%".format)),
        note=tr(
            "Allocated and reserved: by Torch, for each rank trained by itself. In use: by all programs, as NVIDIA's "
            "library counts it."
        ),
    )


def access_table(summary: StudySummary) -> Table:
    """Show the share of time in which the GPU accessed memory or computed; no rows without such a counter."""
    known = [row for row in _on_gpu(summary) if row[1].memory_utilization_percent is not None]
    return make_table(
        known,
        [rank for rank, _ in known],
        (tr("rank"), lambda row: str(row[0])),
        (tr("time accessing memory"), lambda row: optional(row[1].memory_utilization_percent, "{:.1f}%".format)),
        (tr("time computing"), lambda row: optional(row[1].utilization_percent, "{:.1f}%".format)),
        (tr("readings"), lambda row: str(row[1].readings)),
        note=tr("Means of NVIDIA's counters while each rank trained by itself."),
    )


def alone_memory_table(summary: StudySummary) -> Table:
    """Show the readings of memory while each rank trained by itself; no rows without any."""
    known = [(part.rank, part.memory) for part in summary.ranks if part.memory is not None]
    table = _memory_table([_of_rank(rank, memory) for rank, memory in known])
    return replace(
        table,
        ranks=tuple(rank for rank, _ in known),
        note=tr("Memory while each rank trained alone, over all readings; 1 MB is 10^6 bytes."),
    )


def process_table(process: ProcessSection) -> Table:
    """Show the readings of the process's memory over the whole run."""
    name, spike = tr("all ranks together"), process.rss_start_spike
    row = (name, process.rss_mean, process.rss_std, process.rss_min, process.rss_max, spike)
    note = tr("Memory of the process over the whole run, {readings} readings.", readings=process.readings)
    return replace(_memory_table([row]), note=note)


def _of_rank(rank: int, memory: MemorySection) -> Readings:
    return (str(rank), memory.mean, memory.std, memory.min, memory.max, memory.start_spike)


def _memory_table(rows: Sequence[Readings]) -> Table:
    return make_table(
        rows,
        [None] * len(rows),
        (tr("rank"), lambda row: row[0]),
        (tr("mean (MB)"), lambda row: f"{row[1]:,.1f}"),
        (tr("standard deviation (MB)"), lambda row: f"{row[2]:,.1f}"),
        (tr("lowest (MB)"), lambda row: f"{row[3]:,.1f}"),
        (tr("highest (MB)"), lambda row: f"{row[4]:,.1f}"),
        (tr("spike at the start (MB)"), lambda row: tr("none") if row[5] is None else f"{row[5]:,.1f}"),
    )


def _on_gpu(summary: StudySummary) -> list[tuple[int, GpuSection]]:
    return [(part.rank, part.gpu) for part in summary.ranks if part.gpu is not None]


def _by_rank(summary: StudySummary, *columns: tuple[str, RankCell], note: str = "") -> Table:
    """Show every rank; columns without any value are left out."""

    def of_pair(cell: RankCell) -> Callable[[Pair], str]:
        return lambda pair: cell(*pair)

    table = make_table(
        list(zip(summary.ranks, summary.readings.ranks, strict=True)),
        [part.rank for part in summary.ranks],
        (tr("rank"), lambda pair: str(pair[0].rank)),
        *((heading, of_pair(cell)) for heading, cell in columns),
        note=note,
    )
    return drop_empty(table)
