"""Plan of a study as tables and sentences for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lorascope.cli.columns import Column, fit_columns, make_table
from lorascope.text.numbers import arm_text, format_count, format_seconds
from lorascope.text.say import say
from lorascope.units import format_bytes

if TYPE_CHECKING:
    from lorascope.costmodel.plan import PlannedCost, PlannedRank, StudyPlan

_PARTS = {
    "base": "base",
    "adapter": "trained",
    "gradient": "gradient",
    "optimizer": "optimizer",
    "activation": "activations",
    "rest": "rest",
}
"""Parts of peak memory and their headings, which fit in 80 columns; full fine-tuning trains the base."""

_PRIORITIES = {"gradient": 3, "optimizer": 2, "rest": 1}
"""Columns that narrow terminals drop; base and activations are most of the peak."""


def show_plan(console: Console, plan: "StudyPlan") -> None:
    """Print the predicted cost of each rank trained solo, of joint training and of full fine-tuning."""
    together = {f"all {plan.joint_trials} together": plan.joint} if plan.joint_trials > 1 else {}
    rows = (
        {arm_text((part.targets, part.rank)): part.cost for part in plan.ranks}
        | together
        | {"full fine-tuning": plan.full}
    )
    names, costs = list(rows), list(rows.values())
    console.print(Text(_head(plan)))
    console.print()
    columns, parts = _columns(names, costs), _memory_columns(names, costs)
    console.print(make_table(columns, console.width))
    console.print(Text("Peak memory by part", style="bold"))
    console.print(make_table(parts, console.width))
    left_out = [
        column.heading
        for part in (columns, parts)
        for column in part
        if any(column.cells) and column not in fit_columns(part, console.width)
    ]
    if left_out:
        console.print(
            Text(f"This terminal is too narrow for: {', '.join(left_out)}; --json shows everything.", style="dim")
        )
    for line in _lines(plan):
        console.print(Text(line))
    for note in (*map(say, plan.notes), _trust(plan)):
        console.print(Text(note, style="dim"))


def _head(plan: "StudyPlan") -> str:
    return (
        f"{plan.model}: {format_count(plan.base_parameters)} parameters in {plan.dtype}, adapters in "
        f"{plan.adapted_modules} layers, on {plan.device} with {format_bytes(plan.device_memory_bytes)}"
    )


def _columns(names: Sequence[str], costs: Sequence["PlannedCost"]) -> list[Column]:
    runs = ["" if cost.runtime_seconds is None else format_seconds(cost.runtime_seconds) for cost in costs]
    return [
        Column(heading="", cells=names, left=True),
        Column(heading="parameters", cells=[format_count(cost.trainable_parameters) for cost in costs], priority=2),
        Column(
            heading="adapter file", cells=[*(format_bytes(cost.adapter_bytes) for cost in costs[:-1]), ""], priority=3
        ),
        Column(heading="MFLOPs/token", cells=[f"{cost.flops_per_token / 1e6:,.0f}" for cost in costs], priority=5),
        Column(heading="moved/step", cells=[format_bytes(cost.bytes_per_step) for cost in costs], priority=6),
        Column(heading="step", cells=[format_seconds(cost.step_seconds) for cost in costs]),
        Column(heading="run", cells=runs, priority=1),
        Column(heading="peak memory", cells=[format_bytes(cost.peak_memory_bytes) for cost in costs]),
        Column(heading="fits", cells=["yes" if cost.fits else "no" for cost in costs]),
        Column(heading="largest batch", cells=[f"{cost.largest_batch:,}" for cost in costs], priority=4),
    ]


def _memory_columns(names: Sequence[str], costs: Sequence["PlannedCost"]) -> list[Column]:
    parts = [
        Column(
            heading=heading,
            cells=[format_bytes(getattr(cost.memory_split, f"{part}_bytes")) for cost in costs],
            priority=_PRIORITIES.get(part, 0),
        )
        for part, heading in _PARTS.items()
    ]
    return [Column(heading="", cells=names, left=True), *parts]


def _lines(plan: "StudyPlan") -> list[str]:
    lines = [f"Rows: {plan.rows}; {plan.tokens_per_step:,.0f} tokens per step and rank."]
    if plan.total_steps is None:
        lines.append("The number of rows is unknown: give --max-steps to see the time of a run.")
    if plan.training_seconds is not None:
        total = plan.training_seconds + (plan.evaluation_seconds or 0.0)
        evaluating, extra = "", "held-out evaluations, "
        if plan.evaluation_seconds is not None:
            evaluating, extra = f", {format_seconds(plan.evaluation_seconds)} of it held-out evaluations", ""
        lines.append(
            f"Training: {format_seconds(total)}{evaluating}; less if learning rates stop early, more if the grid is "
            f"extended. Startup, {extra}solo runs and the analysis of adapters come on top."
        )
    unfit = [_name(part) for part in plan.ranks if not part.cost.fits]
    if not unfit:
        lines.append("Every rank fits in memory.")
    elif len(unfit) == len(plan.ranks):
        lines.append("No rank fits in memory.")
    else:
        lines.append(f"Ranks that do not fit: {', '.join(unfit)}.")
    return [*lines, *_limits(plan), *_savings(plan)]


def _limits(plan: "StudyPlan") -> list[str]:
    if not plan.limits:
        return []
    from lorascope.analysis.verdict.limits import describe  # it imports what reads studies: half a second

    known = [limit for limit in plan.limits if limit.taken(plan.ranks[0].cost) is not None]
    beyond = {
        _name(part): ", ".join(say(describe(limit, part.cost)) for limit in known if limit.exceeded(part.cost))
        for part in plan.ranks
    }
    needs = "; ".join(f"rank {rank} by its {what}" for rank, what in beyond.items() if what)
    unknown = [limit.field for limit in plan.limits if limit not in known]
    lines = [f"{', '.join(unknown)} was not checked: the time of a run is unknown."] if unknown else []
    if known:
        lines.append(f"Over the limits: {needs}." if needs else "No rank is predicted to exceed the limits.")
    return lines


def _name(part: "PlannedRank") -> str:
    return arm_text((part.targets, part.rank)).removeprefix("rank ")


def _savings(plan: "StudyPlan") -> list[str]:
    first = plan.ranks[0]
    saved = plan.full.peak_memory_bytes / first.cost.peak_memory_bytes
    slower = plan.full.step_seconds / first.cost.step_seconds
    return [
        f"Full fine-tuning takes {saved:.1f} times the memory and {slower:.1f} times the step of rank {first.rank}."
    ]


def _trust(plan: "StudyPlan") -> str:
    known = plan.calibration
    if known is None:
        return "No finished study on this device has calibrated these times yet; expect errors of tens of percent."
    return (
        f"Calibrated by a finished study of a model of {format_count(known.parameters)} parameters on this device, "
        f"which scales times by {known.factor:.2f} and gives the rest of memory; expect errors of tens of percent."
    )
