"""Plan of a study for the terminal: one line that answers, one table, and what the numbers rest on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lorascope.cli.columns import Column, fit_columns, make_table
from lorascope.message import Message
from lorascope.text.numbers import arm_text, format_about, format_count, format_seconds
from lorascope.text.say import say
from lorascope.units import format_bytes

if TYPE_CHECKING:
    from lorascope.cli.forecast import Forecast
    from lorascope.costmodel.cost_types import PlannedCost
    from lorascope.costmodel.plan import PlannedRank, StudyPlan


def show_plan(console: Console, plan: "StudyPlan", forecast: "Forecast | None" = None) -> None:
    """Print whether the study fits, how long it takes and in how much memory; then each rank by itself."""
    fits = all(part.cost.fits for part in plan.ranks)
    console.print(Text(_answer(plan, forecast), style="bold green" if fits else "bold red"))
    for message in _forecast(forecast) if forecast else ():
        console.print(Text(say(message)))
    console.print(Text(_subject(plan), style="dim"))
    for note in plan.notes:
        console.print(Text(say(note)))
    console.print()
    columns = _columns(plan)
    console.print(make_table(columns, console.width))
    kept = fit_columns(columns, console.width)
    left_out = [column.heading for column in columns if any(column.cells) and column not in kept]
    if left_out:
        console.print(Text(f"Left out for want of width: {', '.join(left_out)}; --json shows all.", style="dim"))
    for line in _lines(plan, forecast):
        console.print(Text(line))
    console.print(Text(_trust(plan), style="dim"))


def _forecast(forecast: "Forecast") -> Iterator[Message]:
    """Say how likely a verdict is, by which data and which noise."""
    from lorascope.analysis.verdict.decide import LEAST  # as in _limits

    chance, last = forecast.chance, forecast.stages[-1]
    if forecast.has_enough:
        yield Message(
            "plan.verdict",
            equal=chance.if_equal,
            worse=chance.if_worse,
            rank=forecast.rank,
            excess=forecast.worse_by,
            difference=chance.smallest_difference,
        )
    else:
        yield Message("plan.no_verdict", least=LEAST)
    source = Message("plan.noise_assumed" if forecast.is_assumed else "plan.noise_known")
    code = "plan.data" if len(forecast.stages) == 1 else "plan.data_at_most"
    yield Message(code, steps=forecast.steps, seeds=last.seeds, rows=last.rows, noise=source)


def _answer(plan: "StudyPlan", forecast: "Forecast | None") -> str:
    """Write the one line: fits or not, memory, time with start and evaluations, largest batch."""
    joint, memory = plan.joint, format_bytes(plan.device_memory_bytes)
    unfit = [part for part in plan.ranks if not part.cost.fits]
    if unfit:
        needed = format_bytes(unfit[0].cost.peak_memory_bytes)
        begin = f"Does not fit: rank {_name(unfit[0])} needs {needed} of {memory}"
    elif not joint.fits:
        begin = (
            f"Fits in turns: all {plan.joint_trials} together need {format_bytes(joint.peak_memory_bytes)} of {memory}"
        )
    else:
        begin = f"Fits: {format_bytes(joint.peak_memory_bytes)} of {memory}"
    about = "at least" if plan.evaluation_seconds is None else "about"
    if forecast and len(forecast.stages) > 1:
        about = "at most about"
    time = "time unknown" if plan.total_seconds is None else f"{about} {format_about(plan.total_seconds)} with start"
    return f"{begin}, {time}, largest batch {joint.largest_batch:,}"


def _subject(plan: "StudyPlan") -> str:
    return (
        f"{plan.model}: {format_count(plan.base_parameters)} parameters in {plan.dtype}, adapters in "
        f"{plan.adapted_modules} layers, on {plan.device}"
    )


def _columns(plan: "StudyPlan") -> list[Column]:
    together = {f"all {plan.joint_trials}": plan.joint} if plan.joint_trials > 1 else {}
    rows: dict[str, PlannedCost] = {_name(part): part.cost for part in plan.ranks} | together | {"full": plan.full}
    costs = list(rows.values())
    runs = ["" if cost.runtime_seconds is None else format_seconds(cost.runtime_seconds) for cost in costs]
    return [
        Column(heading="rank", cells=list(rows)),
        Column(heading="params", cells=[format_count(cost.trainable_parameters) for cost in costs], priority=4),
        Column(heading="adapter", cells=[*(format_bytes(cost.adapter_bytes) for cost in costs[:-1]), ""], priority=5),
        Column(heading="step", cells=[format_seconds(cost.step_seconds) for cost in costs]),
        Column(heading="all steps", cells=runs, priority=1),
        Column(heading="peak mem", cells=[format_bytes(cost.peak_memory_bytes) for cost in costs]),
        Column(heading="fits", cells=["yes" if cost.fits else "no" for cost in costs], priority=2),
        Column(heading="largest batch", cells=[f"{cost.largest_batch:,}" for cost in costs], priority=3),
    ]


def _lines(plan: "StudyPlan", forecast: "Forecast | None") -> Iterator[str]:
    steps = "" if plan.total_steps is None else f"{plan.total_steps:,} steps, "
    yield f"Rows: {plan.rows}; {steps}{plan.tokens_per_step:,.0f} tokens per step and rank. Full: full fine-tuning."
    if plan.total_steps is None:
        yield "The number of rows is unknown: give --max-steps to see the time of a run."
    if plan.training_seconds is not None:
        evaluating = plan.evaluation_seconds
        more = "evaluations come on top" if evaluating is None else f"evaluations {format_about(evaluating)}"
        what = "Training" if forecast is None else f"Training with {forecast.stages[0].seeds} seeds"
        yield (
            f"{what} takes {format_about(plan.training_seconds)}, {more}: less with early stopping, more if the best "
            "rate is at the edge."
        )
    yield from _limits(plan)
    first = plan.ranks[0]
    saved = plan.full.peak_memory_bytes / first.cost.peak_memory_bytes
    slower = plan.full.step_seconds / first.cost.step_seconds
    yield f"Full fine-tuning takes {saved:.1f} times the memory and {slower:.1f} times the step of rank {_name(first)}."


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
    """Name a rank, with its set of target modules where the study has several."""
    return arm_text((part.targets, part.rank)).removeprefix("rank ")


def _trust(plan: "StudyPlan") -> str:
    known = plan.calibration
    if known is None:
        return "Uncalibrated on this device: times may be off by a factor of 2."
    return (
        f"Calibrated by a finished study of a model of {format_count(known.parameters)} parameters on this device, "
        f"which scales times by {known.factor:.2f}; expect errors of tens of percent."
    )
