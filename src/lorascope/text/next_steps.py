"""Next steps: complete commands that follow from a study's answer, with their time."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from itertools import islice
from pathlib import Path

from lorascope.analysis.summary import StudySummary
from lorascope.text.language import tr
from lorascope.text.numbers import format_about

_ENOUGH_STEPS, _ENOUGH_ROWS, _ENOUGH_SEEDS = 50, 100, 3
"""Sizes from which on a study says something."""
_MARGIN = 1.25
"""A longer time budget is this much larger than what was spent and what comes next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One thing to do."""

    title: str
    """Such as: To decide."""
    command: str
    """Complete: real paths, no placeholders."""
    note: str = ""
    """What it does and how long it takes."""


def next_steps(summary: StudySummary, folder: Path) -> Sequence[Step]:
    """Return what would decide or continue the study, and how to write the adapter where it is truncated."""
    named = folder if folder.name not in ("", "..") else folder.resolve()  # new folders are named after it
    return (*_study_steps(summary, named), *_timing_steps(summary, named), *_export_steps(summary, named))


def study_seconds(summary: StudySummary) -> float | None:
    """Return the time of all joint steps and evaluations; None before the first."""
    joint = summary.costs.joint if summary.costs else None
    return joint.seconds + joint.evaluation_seconds if joint else None


def _study_steps(summary: StudySummary, folder: Path) -> Iterator[Step]:
    answer = summary.answer
    if not summary.study.complete:
        yield Step(title=tr("To continue"), command=_command("run", folder), note=_time_left(summary))
    elif answer.status in ("too_early", "undecided") and _out_of_time(summary):
        yield _more_time(summary, folder)
    elif answer.status == "too_early":
        yield _longer(summary, folder)
    elif answer.status == "undecided":
        yield _decisive(summary, folder)
    elif answer.status == "one_rank":
        yield _other_ranks(summary, folder)


def _time_left(summary: StudySummary) -> str:
    """Extrapolate the time of the steps that were taken to those of all trials, stopped ones left out."""
    seconds, total = study_seconds(summary), summary.study.total_steps
    done = sum(trial.steps for trial in summary.trials)
    waiting = [trial for trial in summary.trials if trial.outcome in ("not_started", "running")]
    if not seconds or not total or not done:
        return tr("continues from what is saved")
    left = seconds / done * sum(total - trial.steps for trial in waiting)
    return tr("continues from what is saved, about {time} left", time=format_about(left))


def _out_of_time(summary: StudySummary) -> bool:
    """Return True for a study that its time budget ended."""
    ended = any(message.code == "trial.no_time" for trial in summary.trials for message in trial.message)
    return ended or (bool(summary.looks) and summary.looks[-1].next == "budget")


def _more_time(summary: StudySummary, folder: Path) -> Step:
    """Begin anew with the time that was missing, or else with twice as much; the study's own looks have ended."""
    spent = sum(activity.spent_seconds for activity in summary.time_book)
    missing = summary.looks[-1].next_seconds if summary.looks else 0.0
    minutes = math.ceil(_MARGIN * (spent + (missing or spent)) / 60)
    beside = folder.with_name(f"{folder.name}-{minutes}min")
    command = _command("run", folder, time_budget=f"{minutes}min", out=beside)
    return Step(
        title=tr("To decide"), command=command, note=tr("a new study, about {time}", time=format_about(60 * minutes))
    )


def _longer(summary: StudySummary, folder: Path) -> Step:
    """Train for more steps, or hold out more rows, in a study of its own."""
    study, code = summary.study, summary.answer.text.code
    if code == "answer.few_rows":
        return _again(summary, folder, eval_examples=_ENOUGH_ROWS)
    return _again(summary, folder, max_steps=max(_ENOUGH_STEPS, 2 * (study.total_steps or 0)))


def _decisive(summary: StudySummary, folder: Path) -> Step:
    """Run the seeds or rows that would decide; accept a larger tolerance where none would."""
    seeds, need = summary.study.seeds, summary.verdict.remedy
    needed = need.text.values if need else {}
    if len(seeds) == 1:
        return _more_seeds(summary, folder, _ENOUGH_SEEDS)
    if isinstance(count := needed.get("more_seeds"), int):
        return _more_seeds(summary, folder, count)
    if isinstance(rows := needed.get("rows"), int):
        return _again(summary, folder, eval_examples=rows)
    accepted = next((change.values["tolerance"] for change in summary.recommendation.use.change
                     if change.code == "change.enough_from"), None)  # fmt: skip
    if need and isinstance(accepted, float):
        tolerance = _rounded_up(accepted)
        return Step(
            title=tr("To settle"),
            command=_command("report", folder, tolerance=f"{tolerance:g}"),
            note=tr("proven if you accept +{tolerance}, without more training", tolerance=f"{tolerance:g}"),
        )
    return _more_seeds(summary, folder, len(seeds) + 1)


def _other_ranks(summary: StudySummary, folder: Path) -> Step:
    """Compare with ranks around a single one, or train those again that did not come through."""
    if len(summary.ranks) > 1:
        lowest = min(summary.study.learning_rates)
        return _again(summary, folder, learning_rates=f"{lowest / 10:g},{lowest:g}")
    rank, seconds = summary.ranks[0].rank, study_seconds(summary)
    ranks = sorted({max(1, rank // 4), rank, 4 * rank})
    return _grow(folder, seconds and seconds * (len(ranks) - 1), ranks=",".join(map(str, ranks)))


def _more_seeds(summary: StudySummary, folder: Path, count: int) -> Step:
    """Add seeds to the study; one that took looks may have no more, so that it is run again beside it."""
    seeds, seconds, need = summary.study.seeds, study_seconds(summary), summary.verdict.remedy
    unused = (seed for seed in count_from(0) if seed not in seeds)
    used = ",".join(map(str, [*seeds, *islice(unused, count - len(seeds))]))
    if summary.looks:
        return _again(summary, folder, seeds=used)
    if need is not None and need.seconds is not None and need.text.values.get("more_seeds") == count:
        return _grow(folder, need.seconds, seeds=used)
    return _grow(folder, seconds and seconds * (count / len(seeds) - 1), seeds=used)


def _grow(folder: Path, seconds: float | None, **changes: str) -> Step:
    """Add trials to the study in its folder."""
    note = tr("adds to this study, about {time}", time=format_about(seconds)) if seconds else tr("adds to this study")
    return Step(title=tr("To decide"), command=_command("run", folder, **changes), note=note)


def _again(summary: StudySummary, folder: Path, **changes: int | str) -> Step:
    """Run the study with other settings beside it, as its own holds what it was asked for."""
    study, seconds = summary.study, study_seconds(summary)
    ((field, value),) = changes.items()
    times = 1.0
    if field == "max_steps" and isinstance(value, int):
        times = value / (study.total_steps or value)
    elif field in ("seeds", "learning_rates"):
        was = study.seeds if field == "seeds" else study.learning_rates
        times = len(str(value).split(",")) / len(was)
    beside = folder.with_name(f"{folder.name}-{_slug(field, value)}")
    note = tr("a new study, about {time}", time=format_about(seconds * times)) if seconds else tr("a new study")
    return Step(title=tr("To decide"), command=_command("run", folder, **{field: value}, out=beside), note=note)


def _timing_steps(summary: StudySummary, folder: Path) -> Iterator[Step]:
    if summary.study.complete and summary.recommendation.time.reason.code == "advice.unsteady_times":
        yield Step(title=tr("To time it"), command=_command("run", folder, cost="full"))


def _export_steps(summary: StudySummary, folder: Path) -> Iterator[Step]:
    rank, cut = summary.recommendation.use.rank, summary.answer.truncate_to
    if rank is not None and cut is not None:
        yield Step(title=tr("To ship it"), command=export_command(summary, folder, rank, truncate=cut))


def export_command(summary: StudySummary, folder: Path, rank: int, *, truncate: int | None = None) -> str:
    """Return the command that copies a rank's adapter out of a study, whole or truncated."""
    given: dict[str, object] = {"rank": rank, "target_modules": summary.study.targets, "truncate": truncate}
    to = f"{folder.resolve().name}-r{rank}" + (f"-cut{truncate}" if truncate else "")
    return _command("export", folder, **{flag: value for flag, value in given.items() if value}, to=to)


def _command(name: str, folder: Path, **flags: object) -> str:
    given = [part for flag, value in flags.items() for part in (f"--{flag.replace('_', '-')}", str(value))]
    return shlex.join(["lorascope", name, str(folder), *given])


def _slug(field: str, value: int | str) -> str:
    names = {
        "seeds": "seeds",
        "max_steps": "steps",
        "eval_examples": "rows",
        "learning_rates": "rates",
    }
    amount = len(value.split(",")) if isinstance(value, str) else value
    return f"{amount}-{names[field]}"


def _rounded_up(value: float) -> float:
    """Round up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")
