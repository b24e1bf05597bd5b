"""The answer sheet of the reference study: what a course asks for, in its order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from lorascope.analysis import StudySummary
from lorascope.analysis.readings_schema import DoublingSection
from lorascope.charts.chart import Chart
from lorascope.report.provenance import environment_details, measurement_text
from lorascope.report.sections import Block, Blocks, ReportSection
from lorascope.report.templating import language_ending, make_environment
from lorascope.text.caveats import GRAVE
from lorascope.text.language import tr
from lorascope.text.numbers import format_count, format_seconds, interval, nats, ranks, upper_first
from lorascope.text.pros_and_cons import cons, not_measured, pros
from lorascope.text.say import say
from lorascope.text.tables.advice import Need, needs, of_set, status_word
from lorascope.text.tables.assignment import (
    access_table,
    adapter_table,
    alone_memory_table,
    gpu_table,
    loss_table,
    process_table,
    runtime_table,
)
from lorascope.text.tables.readings import doubling_table
from lorascope.text.tables.table import Table

_BANDWIDTH = ("costs.bandwidth", "costs.bandwidth_rank", "costs.bandwidth_alike", "costs.bandwidth_unknown",
              "costs.arithmetic", "costs.overhead")  # fmt: skip

Charts = Mapping[str, Chart]


def assignment_text(summary: StudySummary, charts: Charts) -> str:
    """Write the answer sheet as Markdown, in the language in use; ``charts`` are linked as pictures."""
    study, answer = summary.study, summary.answer
    return (
        make_environment()
        .get_template("assignment.md.j2")
        .render(
            ending=language_ending(),
            title=tr("LoRA ranks for {model} on {dataset}", model=study.model, dataset=study.dataset),
            status=status_word(answer),
            answer=of_set(summary, say(answer.text)),
            now=[say(message) for message in answer.now],
            grave=[say(caution.text) for caution in summary.cautions if caution.kind in GRAVE],
            sections=_sections(summary, charts),
        )
    )


def _sections(summary: StudySummary, charts: Charts) -> list[ReportSection]:
    parts: tuple[tuple[str, Blocks], ...] = (
        (tr("Environment"), _environment(summary)),
        (tr("Model and data set"), _points(_rows(summary))),
        (tr("LoRA configuration"), _lora(summary)),
        (tr("Loss by rank"), _loss(summary, charts)),
        (tr("Runtime by rank"), _runtime(summary, charts)),
        (tr("GPU memory allocated"), _gpu_memory(summary, charts)),
        (tr("Process memory"), _process_memory(summary, charts)),
        (tr("Time spent accessing memory"), _access(summary, charts)),
        (tr("Conclusions by need"), _conclusions(summary, charts)),
        (tr("Pros and cons of LoRA"), _pros_and_cons(summary)),
        (tr("Limits and method"), _limits(summary)),
    )
    return [ReportSection(name="", title=title, blocks=blocks) for title, blocks in parts]


def _environment(summary: StudySummary) -> Blocks:
    if summary.environment is None:
        return _text(tr("The study has not begun."))
    details = _points(f"{name}: {value}" for name, value in environment_details(summary))
    return [*details, *_text(tr("Command that reproduces it:")), Block(command=summary.environment.command)]


def _rows(summary: StudySummary) -> Iterator[str]:
    """Write model, rows, their split and how long they were trained on; known values only."""
    study, settings = summary.study, summary.settings
    yield tr("Model: {model}", model=study.model)
    if study.base_parameters is not None and study.dtype is not None:
        count = format_count(study.base_parameters)
        yield tr("Its parameters: {count}, frozen, in {dtype}", count=count, dtype=study.dtype)
    split = settings.split if settings.eval_split is None else f"{settings.split} / {settings.eval_split}"
    yield tr("Data set: {dataset}, split {split}", dataset=study.dataset, split=split)
    if study.train_examples is not None and summary.compared_rows is not None:
        yield tr(
            "Rows: {train} for training, {held_out} held out and never trained on",
            train=format_count(study.train_examples),
            held_out=format_count(summary.compared_rows),
        )
    yield tr("Tokens of a row: at most {tokens}", tokens=settings.max_length)
    yield from map(say, study.data_notes)
    if study.total_steps is not None and settings.epochs is not None:
        yield tr(
            "Training steps: {steps}; rows per step: {rows}; epochs: {epochs}",
            steps=format_count(study.total_steps),
            rows=settings.rows_per_step,
            epochs=f"{settings.epochs:.3g}",
        )
    yield tr("Learning rates: {rates}", rates=", ".join(f"{rate:g}" for rate in study.learning_rates))
    yield tr("Seeds: {seeds}", seeds=", ".join(map(str, study.seeds)))


def _lora(summary: StudySummary) -> Blocks:
    settings, layers = summary.settings, summary.study.adapted_modules
    points = [
        tr("Rank: {ranks}", ranks=", ".join(str(part.rank) for part in summary.ranks)),
        tr("Dropout: {share}", share=f"{settings.lora_dropout:g}"),
    ]
    if layers is not None:
        targets = ", ".join(settings.target_modules)
        points.append(tr("Target modules: {targets} ({layers} layers)", targets=targets, layers=layers))
    sets = summary.target_sets
    several = (
        f"{say(sets.reason)} {tr('All that is shown elsewhere is of {targets}.', targets=sets.use)}" if sets else ""
    )
    texts = [*_text(say(summary.readings.alpha)), *_text(several)]
    return [*_points(points), *_table(adapter_table(summary)), *texts]


def _loss(summary: StudySummary, charts: Charts) -> Blocks:
    readings, study = summary.readings, summary.study
    late = [
        read.rank for read in readings.ranks if read.stable_step is not None and read.stable_step == study.total_steps
    ]
    sentences = [
        tr("Before training, the base model's held-out loss is {loss}.", loss=nats(summary.base_eval_loss))
        if summary.base_eval_loss is not None
        else "",
        tr(
            "At {ranks} the training loss comes near its final level at the last step only: whether it has settled is "
            "open.",
            ranks=ranks(late),
        )
        if late
        else "",
        _rows_of_charts(summary),
    ]
    return [
        *_pictures(charts, "train_loss", "eval_loss"),
        *_table(loss_table(summary)),
        *_text(" ".join(filter(None, sentences))),
        *_text(say(summary.verdict.text)),
        *_doublings(summary, charts),
        *_text(say(readings.naive.text)),
    ]


def _rows_of_charts(summary: StudySummary) -> str:
    """Explain why losses in charts are not those of the table, where looks added held-out rows."""
    first, compared = summary.study.eval_examples, summary.compared_rows
    if first is None or compared is None or first == compared:
        return ""
    return tr(
        "Curves are of the {first} held-out rows that training was evaluated on, the table is of all {compared}.",
        first=first,
        compared=compared,
    )


def _doublings(summary: StudySummary, charts: Charts) -> Blocks:
    steps = summary.readings.doublings
    if not steps:
        return []
    found = [*map(_gain, steps), *filter(None, (say(summary.readings.knee_text),))]
    lead = tr("What a higher rank gains:")
    if summary.verdict.seeds == 1:
        found.append(tr("With one seed, in that seed only."))
    return [
        *_pictures(charts, "gain_per_doubling"),
        *_table(doubling_table(summary)),
        Block(text=lead, points=tuple(found)),
    ]


def _gain(step: DoublingSection) -> str:
    low, high = step.gain_ci95
    value = interval(step.gain, low, high)
    names = {"smaller": step.smaller, "larger": step.larger}
    if low > 0:
        per = nats(step.gain_per_doubling)
        return tr(
            "From rank {smaller} to {larger} the held-out loss falls by {value}, by {per} for each doubling.",
            value=value,
            per=per,
            **names,
        )
    if high < 0:
        return tr("From rank {smaller} to {larger} nothing is gained: the change is {value}.", value=value, **names)
    return tr("From rank {smaller} to {larger} no gain is shown: {value}.", value=value, **names)


def _runtime(summary: StudySummary, charts: Charts) -> Blocks:
    table = runtime_table(summary)
    joint = summary.costs.joint if summary.costs else None
    together = (
        tr(
            "All trials together trained for {seconds}, and their held-out evaluations took {evaluation}.",
            seconds=format_seconds(joint.seconds),
            evaluation=format_seconds(joint.evaluation_seconds),
        )
        if joint
        else ""
    )
    if not table.rows:
        return _text(" ".join(filter(None, (_not_alone(), together))))
    return [*_pictures(charts, "runtime"), *_table(table), *_text(together)]


def _not_alone() -> str:
    return tr("Not measured: this study left out the solo runs, which train each rank by itself.")


def _on_processor(summary: StudySummary) -> bool:
    return summary.study.device == "cpu"


def _gpu_memory(summary: StudySummary, charts: Charts) -> Blocks:
    if _on_processor(summary):
        return _text(tr("None: the study ran on a processor. Its memory is in the next section."))
    table = gpu_table(summary)
    if not table.rows:
        return _text(_not_alone())
    return [
        *_pictures(charts, "gpu_memory"),
        *_table(table),
        *_pictures(charts, "memory_alone"),
        *_table(alone_memory_table(summary)),
    ]


def _process_memory(summary: StudySummary, charts: Charts) -> Blocks:
    process = summary.costs.process if summary.costs else None
    whole = [*_pictures(charts, "memory_over_time"), *_table(process_table(process))] if process else []
    alone: Blocks = []
    if _on_processor(summary):
        table = alone_memory_table(summary)
        alone = [*_pictures(charts, "memory_alone"), *_table(table)] if table.rows else _text(_not_alone())
    return alone + whole or _text(tr("Not measured."))


def _access(summary: StudySummary, charts: Charts) -> Blocks:
    costs = summary.costs
    texts = costs.readings.texts if costs and costs.readings else ()
    found = [say(message) for message in texts if message.code in _BANDWIDTH]
    if _on_processor(summary):
        found += [say(costs.process.traffic_text)] if costs and costs.process else []
        lead = tr("What was measured of memory bandwidth:")
        none = _text(tr("None: a processor has no counter of this time."))
        return [*none, Block(text=lead, points=tuple(found))] if found else none
    table = access_table(summary)
    if not table.rows:
        return _text(tr("Not measured: there are no readings of this counter."))
    return [*_pictures(charts, "gpu_memory_access", "gpu_utilization"), *_table(table), *_points(found)]


def _conclusions(summary: StudySummary, charts: Charts) -> Blocks:
    if summary.recommendation.use.rank is None:
        return _text(say(summary.recommendation.use.reason))
    loss, value, _, memory = needs(summary)
    smaller = value.measure if value.rank != summary.ranks[-1].rank else ""  # of the largest rank that is its loss
    named = ((tr("Best quality"), loss, ""), (tr("Efficient"), value, smaller),
             (tr("Scarce memory"), memory, memory.measure))  # fmt: skip
    points = [_need(summary, title, need, measure) for title, need, measure in named]
    return [*_points(points), *_pictures(charts, "loss_against_memory", "loss_against_time")]


def _need(summary: StudySummary, title: str, need: Need, measure: str) -> str:
    """Write a rank with its reason in numbers, and how sure it is that its loss is good enough."""
    if need.rank is None:
        return tr("{need}: no rank can be named ({reason}).", need=title, reason=need.reason)
    reasons = upper_first("; ".join(filter(None, (need.reason, measure))))
    named = tr("{need}: rank {rank}. {reasons}.", need=title, rank=need.rank, reasons=reasons)
    if not need.badge:
        return named
    tolerance = f"{summary.study.tolerance:g}"
    sure = tr("Loss within {tolerance} of the lowest: {evidence}.", tolerance=tolerance, evidence=need.badge)
    return f"{named} {sure}"


def _pros_and_cons(summary: StudySummary) -> Blocks:
    return [
        Block(text=tr("Pros, in numbers of this study:"), points=tuple(pros(summary))),
        Block(text=tr("Cons, in numbers of this study:"), points=tuple(cons(summary))),
    ]


def _limits(summary: StudySummary) -> Blocks:
    points = [*(say(caution.text) for caution in summary.cautions), *not_measured(summary)]
    return [*_points(points), *_text(measurement_text(summary))]


def _pictures(charts: Charts, *names: str) -> Blocks:
    """Link charts; their findings are left out, as tables say the same with intervals."""
    found = tuple(replace(charts[name], finding="") for name in names if name in charts)
    return [Block(charts=found)] if found else []


def _table(table: Table) -> Blocks:
    return [Block(table=table), *_text(table.note)] if table.rows else []


def _text(text: str) -> Blocks:
    return [Block(text=text)] if text else []


def _points(points: Iterable[str]) -> Blocks:
    found = tuple(points)
    return [Block(points=found)] if found else []
