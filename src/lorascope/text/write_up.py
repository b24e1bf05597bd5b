"""A write-up to copy: paragraphs on loss, on time and memory, on the conclusion by need, and the table."""

from collections.abc import Iterator
from itertools import chain

from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.text.language import tr, trn
from lorascope.text.looks import over_looks
from lorascope.text.numbers import format_count, format_seconds, ranks
from lorascope.text.say import say
from lorascope.text.tables.advice import Need, needs
from lorascope.text.tables.overview import overview_table, short_name, unsteady_mark
from lorascope.text.tables.ranks import excess_with_interval
from lorascope.text.tables.table import Table
from lorascope.units import format_bytes

_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$",
})  # fmt: skip


def paragraphs(summary: StudySummary) -> tuple[str, ...]:
    """Write the paragraphs; one without anything to say is left out."""
    written = (" ".join(part(summary)) for part in (_loss, _cost, _conclusion))
    return tuple(filter(None, written))


def markdown(summary: StudySummary) -> str:
    """Write paragraphs and table as Markdown."""
    table = overview_table(summary)
    head = [table.header, ["---", *["--:"] * (len(table.header) - 1)]]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in chain(head, table.rows)]
    return "\n\n".join([*paragraphs(summary), "\n".join(lines), table.note]) + "\n"


def latex(summary: StudySummary) -> str:
    """Write paragraphs and table as LaTeX, for the package booktabs."""
    table = overview_table(summary)
    return "\n\n".join([*map(_escape, paragraphs(summary)), _latex_table(table)]) + "\n"


def _latex_table(table: Table) -> str:
    def line(row: tuple[str, ...]) -> str:
        return " & ".join(map(_escape, row)) + r" \\"

    rows = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *map(line, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{_escape(table.note)}}}",
        r"\end{table}",
    ]
    return "\n".join(rows)


def _escape(text: str) -> str:
    return text.translate(_LATEX)


def _compared(summary: StudySummary) -> list[RankSection]:
    return [part for part in summary.ranks if part.eval_loss is not None]


def _loss(summary: StudySummary) -> Iterator[str]:
    study, compared = summary.study, _compared(summary)
    runs = trn("{count} run", "{count} runs", sum(trial.steps > 0 for trial in summary.trials))
    yield tr(
        "{model} was fine-tuned on {dataset} with LoRA at {ranks} ({runs}, {rates}).",
        model=short_name(study.model),
        dataset=short_name(study.dataset),
        ranks=ranks([part.rank for part in summary.ranks]),
        runs=runs,
        rates=trn("{count} learning rate", "{count} learning rates", len(study.learning_rates)),
    )
    if not compared:
        return
    best = min(compared, key=lambda part: part.eval_loss or 0.0)
    yield _lowest(summary, best)
    for part in compared:
        if part is not best and part.excess_loss_ci95 is not None:
            yield tr("Rank {rank} ended {difference} above it.", rank=part.rank, difference=excess_with_interval(part))
    if len(compared) > 1:
        several = any(part.seeds > 1 for part in compared)
        yield (
            tr("Differences are paired by example and seed, with 95% intervals.")
            if several
            else tr("Differences are paired by example, with 95% intervals; there was one seed.")
        )
        if len(study.learning_rates) > 1:
            yield tr("Each rank is at its best learning rate.")
    if summary.looks:
        yield over_looks(summary)


def _lowest(summary: StudySummary, best: RankSection) -> str:
    base, count, loss = summary.base_eval_loss, format_count(summary.compared_rows or 0), f"{best.eval_loss:.3f}"
    if base is None:
        return tr(
            "The loss on {count} held-out examples is lowest at rank {rank}, {loss} nats per token.",
            count=count,
            rank=best.rank,
            loss=loss,
        )
    return tr(
        "The loss on {count} held-out examples fell from {base} nats per token before training to {loss} at rank "
        "{rank}, the lowest.",
        count=count,
        base=f"{base:.3f}",
        loss=loss,
        rank=best.rank,
    )


def _cost(summary: StudySummary) -> Iterator[str]:
    sizes = ", ".join(
        tr(
            "{parameters} parameters ({size}) at rank {rank}",
            parameters=format_count(part.trainable_parameters),
            size=format_bytes(part.adapter_bytes),
            rank=part.rank,
        )
        for part in summary.ranks
        if part.trainable_parameters is not None and part.adapter_bytes is not None
    )
    if sizes:
        yield tr("The adapter has {sizes}.", sizes=sizes)
    timed = [(part.rank, part.step_seconds) for part in summary.ranks if part.step_seconds is not None]
    if unsteady_mark(summary):
        yield tr("The machine was busy or changed its pace, so step times are not compared.")
    elif timed:
        times = ", ".join(tr("{time} at rank {rank}", time=format_seconds(time), rank=rank) for rank, time in timed)
        yield tr("Trained by itself, a step took {times}.", times=times)
    peaks = [(part.rank, part.peak_memory_bytes) for part in summary.ranks if part.peak_memory_bytes is not None]
    if peaks:
        sizes = ", ".join(tr("{size} at rank {rank}", size=format_bytes(size), rank=rank) for rank, size in peaks)
        yield tr("Peak memory was {sizes}.", sizes=sizes)


def _conclusion(summary: StudySummary) -> Iterator[str]:
    yield from (say(summary.answer.text), *map(say, summary.answer.now))
    for need in needs(summary):
        if need.rank is not None:
            yield tr("{need}: rank {rank} ({facts}).", need=need.title, rank=need.rank, facts=_facts(need))


def _facts(need: Need) -> str:
    return ", ".join(filter(None, (need.fact, need.badge)))
