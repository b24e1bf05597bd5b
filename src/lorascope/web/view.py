"""What the page says, as pieces of HTML; everything from outside is escaped by the templates."""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lorascope.analysis.section import Interval
from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.charts.colors import rank_colors
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.records import GpuSample, SystemSample
from lorascope.text.language import LANGUAGES, current_language, tr, trn
from lorascope.text.numbers import format_count, format_seconds
from lorascope.text.say import say
from lorascope.units import format_bytes
from lorascope.web.snapshot import Look
from lorascope.web.state import State, TrialStand

NONE = "–"


def render(template: str, /, **values: object) -> str:
    """Fill one template in the language in use."""
    return _templates().get_template(template).render(code=current_language(), languages=LANGUAGES, **values)


def head(look: Look) -> str:
    """Say what is studied."""
    named = look.resolved or look.spec
    title = tr("{model} on {dataset}", model=named.model, dataset=named.dataset)
    return render("head.html.j2", title=title, facts=_facts(look))


def status(look: Look | None, state: State) -> str:
    """Say how the study stands, what is left, and what its process takes."""
    return render(
        "status.html.j2",
        state=state,
        label=state_label(state),
        text=_state_text(look, state),
        readings=_readings(look, state) if look else (),
    )


def trials(look: Look, state: State) -> str:
    """Show every trial planned so far."""
    colors = rank_colors(look.spec.ranks)
    total = look.resolved.total_steps if look.resolved else None
    return render(
        "trials.html.j2",
        rows=look.trials,
        colors=colors,
        total=total,
        several_rates=len({trial.trial.learning_rate for trial in look.trials}) > 1,
        several_seeds=len({trial.trial.seed for trial in look.trials}) > 1,
        train={name: loss(value) for name, value in look.train_losses.items()},
        held_out={name: loss(value) for name, value in look.eval_losses.items()},
        states=_trial_states(state),
        reasons={trial.trial.trial_id: _last_line(trial.message) for trial in look.trials},
        unknown=NONE,
    )


def marks(look: Look) -> list[dict[str, object]]:
    """Say of each trial what its line needs: its rank, and whether it ended where it should not."""
    ended = ("diverged", "oom", "failed")
    return [
        {
            "id": trial.trial.trial_id,
            "rank": str(trial.trial.rank),
            "learning_rate": f"{trial.trial.learning_rate:g}",
            "seed": str(trial.trial.seed),
            "ended": trial.outcome in ended,
        }
        for trial in look.trials
    ]


def result(summary: StudySummary) -> str:
    """Show what the records say so far: verdict, recommendations, ranks, cautions."""
    colors = rank_colors([part.rank for part in summary.ranks])
    advice = summary.recommendation
    constrained = tr("Within the limits") if summary.study.limited else tr("Where memory is scarce")
    return render(
        "result.html.j2",
        summary=summary,
        cards=(
            (tr("For the lowest loss"), advice.quality),
            (tr("Where time counts too"), advice.efficient),
            (constrained, advice.constrained),
        ),
        colors=colors,
        rows=[(part.rank, _rank_cells(part)) for part in summary.ranks if part.eval_loss is not None],
        # whether a run is at work, which its records do not know, stands above
        cautions=[caution for caution in summary.cautions if caution.kind != "unfinished"],
    )


def problem(error: InputError | sqlite3.Error, folder: Path) -> str:
    """Say why the records cannot be read."""
    if isinstance(error, InputError):
        return render("problem.html.j2", problem=error.problem, remedy=error.remedy)
    return render("problem.html.j2", problem=f"{folder / 'study.db'}: {error}", remedy=tr("It is tried again."))


def loss(value: float | None) -> str:
    """Write a loss in nats a token."""
    return NONE if value is None else f"{value:.4f}"


def state_label(state: State) -> str:
    """Name a study's state in one word."""
    return {
        "preparing": tr("preparing"),
        "running": tr("running"),
        "interrupted": tr("interrupted"),
        "finished": tr("finished"),
        "failed": tr("failed"),
    }[state]


def steps_done(look: Look) -> tuple[int, int]:
    """Count the steps done and planned, over all trials; those that ended early are planned no further."""
    total = look.resolved.total_steps if look.resolved else 0
    planned = sum(total if trial.outcome in ("not_started", "running") else trial.steps for trial in look.trials)
    return sum(trial.steps for trial in look.trials), planned


def _state_text(look: Look | None, state: State) -> str:
    if look is None or not look.trials:
        if state == "interrupted":
            return tr("Nothing is recorded, and no run is at work. The same command starts or continues the study.")
        return tr("The model and the rows are being made ready; nothing is recorded yet.")
    done, planned = (f"{count:,}" for count in steps_done(look))
    if state == "interrupted":
        return tr(
            "No run is at work; {done} of {planned} steps are recorded. The same command continues the study.",
            done=done,
            planned=planned,
        )
    if state == "running":
        if any(trial.outcome in ("not_started", "running") for trial in look.trials):
            return tr("{done} of {planned} steps of all trials", done=done, planned=planned)
        return tr("Training is done; the adapters are being examined, or further trials prepared.")
    return _ending(look.trials)


def _ending(trials: Sequence[TrialStand]) -> str:
    failed = sum(trial.outcome in ("oom", "failed", "diverged") for trial in trials)
    if not failed:
        return trn("{count} trial is complete.", "{count} trials are complete.", len(trials))
    return trn("1 of {all} trials failed.", "{count} of {all} trials failed.", failed, all=len(trials))


def _readings(look: Look, state: State) -> list[tuple[str, str]]:
    """Give the time left and what the process takes, while there is one."""
    if state != "running":
        return []
    readings = []
    if look.seconds_left is not None:
        readings.append((tr("time left, about"), format_seconds(look.seconds_left)))
    process = _process(look.sample) if look.sample else []
    return readings + process + [reading for gpu in look.gpus for reading in _gpu(gpu)]


def _process(sample: SystemSample) -> list[tuple[str, str]]:
    found = [
        (tr("memory of the process"), format_bytes(sample.rss_bytes)),
        (tr("processor"), tr("{cores} cores busy", cores=f"{sample.cpu_percent / 100:.1f}")),
    ]
    if sample.device_allocated_bytes is not None:
        found.append((tr("GPU memory"), format_bytes(sample.device_allocated_bytes)))
    return found


def _gpu(gpu: GpuSample) -> list[tuple[str, str]]:
    found = []
    if gpu.utilization_percent is not None:
        found.append((tr("{gpu} busy", gpu=gpu.name), f"{gpu.utilization_percent}%"))
    if gpu.memory_utilization_percent is not None:
        found.append((tr("{gpu} memory access", gpu=gpu.name), f"{gpu.memory_utilization_percent}%"))
    if gpu.memory_used_bytes is not None and gpu.memory_total_bytes:
        used, total = format_bytes(gpu.memory_used_bytes), format_bytes(gpu.memory_total_bytes)
        found.append((tr("{gpu} memory in use", gpu=gpu.name), tr("{used} of {total}", used=used, total=total)))
    return found


def _facts(look: Look) -> list[tuple[str, str]]:
    found = [(tr("ranks"), ", ".join(str(rank) for rank in sorted(look.spec.ranks)))]
    if look.resolved is not None:
        rows = tr(
            "{train} to train on, {held_out} held out",
            train=format_count(look.resolved.train_examples),
            held_out=format_count(look.resolved.eval_examples),
        )
        found += [(tr("rows"), rows), (tr("steps of a trial"), f"{look.resolved.total_steps:,}")]
        found.append(
            (tr("precision"), tr("{dtype} on {device}", dtype=look.resolved.dtype, device=look.resolved.device))
        )
    if look.starts > 1:
        found.append((tr("runs"), f"{look.starts:,}"))
    return found


def _trial_states(state: State) -> Mapping[str, str]:
    return {
        "not_started": tr("waiting"),
        "running": tr("interrupted") if state == "interrupted" else tr("in training"),
        "finished": tr("finished"),
        "stopped": tr("stopped early"),
        "diverged": tr("diverged"),
        "oom": tr("out of memory"),
        "failed": tr("failed"),
    }


def _rank_cells(part: RankSection) -> Sequence[str]:
    lowest = part.excess_loss == 0 and part.excess_loss_ci95 == (0.0, 0.0)
    return (
        loss(part.eval_loss),
        _interval(part.eval_loss_ci95),
        tr("lowest") if lowest else loss(part.excess_loss),
        "" if lowest else _interval(part.excess_loss_ci95),
        NONE if part.step_seconds is None else format_seconds(part.step_seconds),
        NONE if part.peak_memory_bytes is None else format_bytes(part.peak_memory_bytes),
    )


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else tr("{low} to {high}", low=loss(interval[0]), high=loss(interval[1]))


def _last_line(message: Message | None) -> str:
    """Write a reason; of a long one, such as a traceback, the last line tells what happened."""
    return say(message).strip().splitlines()[-1] if message else ""


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("lorascope.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["say"] = say
    environment.globals["tr"] = tr
    return environment
