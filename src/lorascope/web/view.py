"""HTML of the page; the templates escape all values."""

from collections.abc import Mapping, Sequence
from functools import cache
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from lorascope.analysis.samples import ComparedAnswers
from lorascope.analysis.summary import StudySummary
from lorascope.charts.colors import rank_colors
from lorascope.message import Message
from lorascope.records import UNSUCCESSFUL, GpuSample, SystemSample
from lorascope.spec.schema import StudySpec
from lorascope.text.language import LANGUAGES, current_language, tr, trn
from lorascope.text.numbers import format_count, format_seconds
from lorascope.text.samples import answer_legend, answered_prompt
from lorascope.text.say import say
from lorascope.text.tables.advice import needs, of_set, status_word
from lorascope.text.tables.metrics import metric_table, metrics_title
from lorascope.text.tables.overview import overview_table, short_name
from lorascope.text.tables.table import NONE, loss_cell
from lorascope.text.tables.target_sets import comparison_table, sets_table
from lorascope.text.tables.trials import outcome_names
from lorascope.units import format_bytes
from lorascope.web.monitor import LiveStudy
from lorascope.web.series import Series, recent_mean
from lorascope.web.snapshot import Snapshot
from lorascope.web.state import State, TrialStatus, evaluated


def render(template: str, /, **values: object) -> str:
    """Fill one template in the language in use."""
    return _templates().get_template(template).render(code=current_language(), languages=LANGUAGES, **values)


def head(study: LiveStudy) -> str:
    """Name the model and the rows, with the facts of the study."""
    assert study.spec is not None
    named = (study.snapshot and study.snapshot.resolved) or study.spec
    names = [named.dataset] if isinstance(named.dataset, str) else study.spec.dataset_names
    title = tr("{model} on {dataset}", model=short_name(named.model), dataset=short_name(" + ".join(names)))
    return render("head.html.j2", title=title, facts=_facts(study.spec, study.snapshot))


def status(snapshot: Snapshot | None, state: State, *, report: str) -> str:
    """Show the study's state and progress, the time left, the readings of its process, and what to do next.

    ``report`` is the address of the study's files; empty without a report.
    """
    return render(
        "status.html.j2",
        state=state,
        label=state_label(state),
        text=_state_text(snapshot, state),
        share=_share(snapshot) if snapshot and snapshot.trials else None,
        readings=_readings(snapshot, state) if snapshot else (),
        command=snapshot.command if snapshot and state == "interrupted" else "",
        files=report if state in ("finished", "failed") else "",
    )


def trials(snapshot: Snapshot, series: Series, state: State) -> str:
    """Show every trial planned so far."""
    statuses = snapshot.trials
    return render(
        "trials.html.j2",
        rows=statuses,
        colors=rank_colors(snapshot.spec.ranks),
        total=snapshot.resolved.total_steps if snapshot.resolved else None,
        several_rates=len({trial.trial.learning_rate for trial in statuses}) > 1,
        several_seeds=len({trial.trial.seed for trial in statuses}) > 1,
        train={name: loss_cell(recent_mean(line)) for name, line in series["train"].items()},
        held_out={trial.trial.trial_id: _trained_loss(trial) for trial in statuses},
        states=_trial_states(state),
        reasons={trial.trial.trial_id: _last_line(trial.message) for trial in statuses},
    )


def _trained_loss(trial: TrialStatus) -> str:
    """Write the last held-out loss; the one before the first step is the base model's."""
    if trial.evaluation is None:
        return NONE
    loss = loss_cell(trial.evaluation.loss)
    return loss if trial.evaluation.step else tr("{loss} (base)", loss=loss)


def study_list(studies: Mapping[str, LiveStudy]) -> str:
    """Show studies in a table."""
    return render("list.html.j2", rows=[_list_row(name, study) for name, study in studies.items()])


def result(summary: StudySummary, answers: Sequence[ComparedAnswers] = ()) -> str:
    """Show the summary: verdict, recommendations, ranks, cautions; and what base and ranks answer."""
    early = summary.answer.status == "too_early"
    return render(
        "result.html.j2",
        summary=summary,
        status=tr("Too early to call") if early else status_word(summary.answer),
        needs=() if early else needs(summary),
        colors=rank_colors([part.rank for part in summary.ranks]),
        answer=of_set(summary, say(summary.answer.text)),
        ranks=overview_table(summary),
        sets=[sets_table(summary.target_sets), comparison_table(summary.target_sets)] if summary.target_sets else [],
        metrics=metric_table(summary.metrics) if len(summary.metrics) > 1 else None,
        metrics_title=metrics_title(summary.metrics),
        answered=list(map(answered_prompt, answers)),
        legend=answer_legend(answers) if answers else "",
        # The status above says whether a run is active.
        cautions=[caution for caution in summary.cautions if caution.kind != "unfinished"],
    )


def settings(specs: Mapping[str, StudySpec | None]) -> tuple[tuple[str, ...], ...]:
    """Return the settings in which studies differ: a name and a value for each study."""
    given = [{} if spec is None else spec.model_dump(mode="json") for spec in specs.values()]
    names = [name for one in given for name in one]
    rows = ((name, *(_setting(one.get(name)) for one in given)) for name in dict.fromkeys(names))
    return tuple(row for row in rows if len(set(row[1:])) > 1)


def _setting(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return NONE if value is None else str(value)


def problem(problem: str, remedy: str) -> str:
    """Say why the records cannot be read; empty where they can."""
    return problem and render("problem.html.j2", problem=problem, remedy=remedy or tr("The page will try again."))


def state_label(state: State) -> str:
    """Name a study's state in one word."""
    return {
        "preparing": tr("preparing"),
        "running": tr("running"),
        "interrupted": tr("interrupted"),
        "finished": tr("finished"),
        "failed": tr("failed"),
    }[state]


def _list_row(name: str, study: LiveStudy) -> Mapping[str, str]:
    spec = study.spec
    statuses = study.snapshot.trials if study.snapshot else ()
    return {
        "name": name,
        "address": f"/study/{quote(name, safe='')}?lang={current_language()}",
        "state": study.state,
        "label": state_label(study.state),
        "done": tr("{done} steps", done=f"{sum(trial.steps for trial in statuses):,}"),
        "model": study.problem[0] or (spec.model if spec else ""),
        "dataset": " + ".join(spec.dataset_names) if spec else "",
        "ranks": _ranks(spec) if spec else "",
        "best": _best(statuses),
    }


def _best(trials: Sequence[TrialStatus]) -> str:
    evaluated = [
        (trial.evaluation.loss, trial.trial.rank) for trial in trials if trial.evaluation and trial.evaluation.step
    ]
    losses = [(value, rank) for value, rank in evaluated if value is not None]
    if not losses:
        return NONE
    value, rank = min(losses)
    return tr("{loss} at rank {rank}", loss=loss_cell(value), rank=rank)


def _steps_done(snapshot: Snapshot) -> tuple[int, int]:
    """Count the steps done and planned over all trials; an ended trial plans no more."""
    total = snapshot.resolved.total_steps if snapshot.resolved else 0
    planned = sum(total if trial.is_open else trial.steps for trial in snapshot.trials)
    return sum(trial.steps for trial in snapshot.trials), planned


def _share(snapshot: Snapshot) -> float:
    """Return the share of the run's time that has passed; before its pace is known, the share of the steps."""
    done, planned = _steps_done(snapshot)
    return snapshot.progress.share_done if snapshot.progress else done / max(planned, 1)


def _state_text(snapshot: Snapshot | None, state: State) -> str:
    if snapshot is None or not snapshot.trials:
        if state == "interrupted":
            return tr("Nothing is recorded, and no run is active. The same command starts or continues the study.")
        return tr("Preparing the model and the rows; nothing is recorded yet.")
    done, planned = _steps_done(snapshot)
    progress = {"share": f"{_share(snapshot):.0%}", "done": f"{done:,}", "planned": f"{planned:,}"}
    if state == "interrupted":
        return tr("Stopped at {share} ({done} of {planned} steps).", **progress)
    return _running_text(snapshot, progress) if state == "running" else _ending(snapshot.trials)


def _running_text(snapshot: Snapshot, progress: Mapping[str, str]) -> str:
    if not any(trial.is_open for trial in snapshot.trials):
        return tr("Training is done; adapters are being analyzed or further trials prepared.")
    found = evaluated(snapshot.trials, snapshot.spec, snapshot.resolved.total_steps if snapshot.resolved else 0)
    if found is not None:
        return tr(
            "{share} ({done} of {planned} steps), evaluating {place} of {of}",
            place=found[0] + 1,
            of=found[1],
            **progress,
        )
    return tr("{share} ({done} of {planned} steps)", **progress)


def _ending(trials: Sequence[TrialStatus]) -> str:
    failed = sum(trial.outcome in UNSUCCESSFUL for trial in trials)
    if not failed:
        return trn("{count} trial is complete.", "{count} trials are complete.", len(trials))
    return trn("1 of {all} trials failed.", "{count} of {all} trials failed.", failed, all=len(trials))


def _readings(snapshot: Snapshot, state: State) -> list[tuple[str, str]]:
    """Return the time left and the readings of the process while it runs."""
    if state != "running":
        return []
    readings = []
    if snapshot.progress is not None:
        readings.append((tr("time left (estimate)"), format_seconds(snapshot.progress.seconds_left)))
    process = _process(snapshot.sample) if snapshot.sample else []
    return readings + process + [reading for gpu in snapshot.gpus for reading in _gpu(gpu)]


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


def _facts(spec: StudySpec, snapshot: Snapshot | None) -> list[tuple[str, str]]:
    found = [(tr("ranks"), _ranks(spec))]
    resolved = snapshot.resolved if snapshot else None
    if resolved is not None:
        rows = tr(
            "{train} to train on, {held_out} held out",
            train=format_count(resolved.train_examples),
            held_out=format_count(resolved.eval_examples),
        )
        found += [(tr("rows"), rows), (tr("steps of a trial"), f"{resolved.total_steps:,}")]
        found.append((tr("precision"), tr("{dtype} on {device}", dtype=resolved.dtype, device=resolved.device)))
    if snapshot and snapshot.starts > 1:
        found.append((tr("runs"), f"{snapshot.starts:,}"))
    return found


def _ranks(spec: StudySpec) -> str:
    return ", ".join(str(rank) for rank in sorted(spec.ranks))


def _trial_states(state: State) -> Mapping[str, str]:
    running = tr("interrupted") if state == "interrupted" else tr("in training")
    return outcome_names() | {"not_started": tr("waiting"), "running": running}


def _last_line(message: Message | None) -> str:
    """Return the reason; of a traceback, the last line says what happened."""
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
