"""Final screen of a study: status, table of ranks, needs, next commands; at most 25 lines of 80 columns."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lorascope.analysis import StudySummary
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.cli.columns import Column, make_table
from lorascope.cli.formatting import outcome_line
from lorascope.cli.target_sets import set_lines
from lorascope.records import UNSUCCESSFUL
from lorascope.store.folder import StudyFolder
from lorascope.text.caveats import GRAVE
from lorascope.text.next_steps import next_steps, study_seconds
from lorascope.text.numbers import format_about, format_count
from lorascope.text.say import say
from lorascope.text.tables.advice import Need, needs, of_set, status_word
from lorascope.text.tables.overview import short_name, unsteady_mark
from lorascope.text.tables.ranks import excess_with_interval
from lorascope.text.tables.table import NONE, optional
from lorascope.text.tables.trials import outcome_names
from lorascope.units import format_bytes

MOST_LINES = 25
_TABLE_HEAD = 3
"""Lines of the table before its ranks: headings, a rule, the base model."""
_LEAST_RANKS = 3
"""Ranks shown even where the screen then grows longer."""
_MOST_FAILURES = 2
_COLORS = {"clear": "green", "tie": "blue", "undecided": "yellow", "too_early": "yellow", "no_answer": "red"}
_LABEL = 11
"""Columns of the labels on the left."""


def show_result(console: Console, summary: StudySummary, folder: Path) -> None:
    """Print the final screen of a study, finished or not."""
    head = [_title(summary, console.width), *_problems(summary, console.width), Text(), _answer(summary), Text()]
    sets = set_lines(summary.target_sets, console.width) if summary.target_sets else ()
    foot = [*_needs(summary), *sets, Text(), *_commands(summary, folder)]
    notes = [_table_note(summary, 0), *_unsteady(summary)]
    used = len(console.render_lines(Group(*head, *notes, *foot), console.options.update(no_wrap=False), pad=False))
    ranks = _shown_ranks(summary, MOST_LINES - used - _TABLE_HEAD)
    table = make_table(_columns(summary, ranks), console.width, bold=_best_row(ranks))
    notes[0] = _table_note(summary, len(summary.ranks) - len(ranks))
    for part in (*head, table, *notes, *foot):
        # commands and paths are copied, so they must not be broken into lines
        console.print(part, soft_wrap=isinstance(part, Text) and part.no_wrap is True, highlight=False)


def _title(summary: StudySummary, width: int) -> Text:
    study = summary.study
    seconds = sum(part.spent_seconds for part in summary.time_book) or study_seconds(summary)
    alphas = {alpha for part in summary.ranks for alpha in part.lora_alphas}
    sets = summary.target_sets.sets if summary.target_sets else ()
    axes: list[tuple[Collection[object], str]] = [(sets, "set")] if sets else []
    axes += [(summary.ranks, "rank"), *([(alphas, "alpha")] if _tries_alphas(summary) else [])]
    axes += [(study.learning_rates, "rate"), (study.seeds, "seed")]
    size = [" x ".join(_counted(len(values), name) for values, name in axes)]
    size += [_counted(study.total_steps, "step")] if study.total_steps else []
    size += [format_about(seconds)] if seconds else []
    title = Text(f"{short_name(study.model)} on {short_name(study.dataset)}: {', '.join(size)}")
    title.truncate(width, overflow="ellipsis")
    return title


def _tries_alphas(summary: StudySummary) -> bool:
    return any(len(part.lora_alphas) > 1 for part in summary.ranks)


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def _problems(summary: StudySummary, width: int) -> Iterator[RenderableType]:
    """Yield what may make the study useless, and the runs that did not come through."""
    for caution in summary.cautions:
        if caution.kind in GRAVE:
            yield _labelled("WARNING", Text(say(caution.text), style="red"), style="bold red")
    failures = list(_failures(summary).items())
    for (rank, outcome), trials in failures[:_MOST_FAILURES]:
        line = Text(_failure(summary, rank, outcome_names()[outcome], trials), style="red")
        line.truncate(width - _LABEL, overflow="ellipsis")
        yield _labelled("FAILED", line, style="bold red")
    if len(failures) > _MOST_FAILURES:
        yield _labelled("", Text(f"and runs of {len(failures) - _MOST_FAILURES} more ranks", style="red"))


def _failures(summary: StudySummary) -> Mapping[tuple[int, str], Sequence[TrialSection]]:
    """Return the runs that did not come through, by rank and outcome."""
    found: dict[tuple[int, str], list[TrialSection]] = {}
    for trial in summary.trials:
        if trial.outcome in UNSUCCESSFUL:
            found.setdefault((trial.rank, trial.outcome), []).append(trial)
    return found


def _failure(summary: StudySummary, rank: int, outcome: str, trials: Sequence[TrialSection]) -> str:
    of_rank = sum(trial.rank == rank for trial in summary.trials)
    runs = f" in {len(trials)} of {of_rank} runs" if len(trials) < of_rank else ""
    return outcome_line(
        f"rank {rank}", f"{outcome} after {_counted(trials[0].steps, 'step')}{runs}", say(trials[0].message)
    )


def _answer(summary: StudySummary) -> RenderableType:
    answer = summary.answer
    color = _COLORS.get(answer.status, "")
    lines = [of_set(summary, say(answer.text)), *map(say, answer.now)]
    return _labelled(status_word(answer).upper(), Text("\n".join(lines), style="bold"), style=f"bold {color}".strip())


def _labelled(label: str, what: RenderableType, style: str = "") -> Table:
    table = Table.grid(padding=0)
    table.add_column(width=_LABEL, no_wrap=True)
    table.add_column()
    table.add_row(Text(label, style=style), what)
    return table


def _shown_ranks(summary: StudySummary, most: int) -> list[RankSection]:
    """Choose ranks where there are too many for the screen: those that are named, the ends, then the best ones."""
    advice = summary.recommendation
    named = {found.rank for found in (advice.use, advice.loss, advice.value, advice.time, advice.memory)}
    order = sorted(summary.ranks, key=lambda part: (part.excess_loss is None, part.excess_loss or 0.0))
    ends = {summary.ranks[0].rank, summary.ranks[-1].rank}
    order.sort(key=lambda part: (part.rank not in named, part.rank not in ends))
    kept = {part.rank for part in order[: max(most, _LEAST_RANKS)]}
    return [part for part in summary.ranks if part.rank in kept]


def _best_row(ranks: Sequence[RankSection]) -> int | None:
    best = (place for place, part in enumerate(ranks, start=1) if part.excess_loss == 0)
    return next(best, None)


def _columns(summary: StudySummary, ranks: Sequence[RankSection]) -> list[Column]:
    base = summary.base_eval_loss
    unsteady = unsteady_mark(summary)
    rates = {part.best_learning_rate for part in ranks if part.best_learning_rate is not None}
    columns = {
        ("rank", 0): ["base", *(str(part.rank) for part in ranks)],
        ("held-out", 0): [_loss(base), *(_loss(part.eval_loss) for part in ranks)],
        ("vs best (95 %)", 1): [NONE, *map(excess_with_interval, ranks)],
        ("rate", 6): [
            "",
            *(optional(part.best_learning_rate, "{:g}".format) if len(rates) > 1 else "" for part in ranks),
        ],
        ("alpha", 1): [
            "",
            *(optional(part.lora_alpha if len(part.lora_alphas) > 1 else None, "{:g}".format) for part in ranks),
        ],
        ("params", 4): [NONE, *(optional(part.trainable_parameters, format_count) for part in ranks)],
        ("adapter", 5): [NONE, *(optional(part.adapter_bytes, format_bytes) for part in ranks)],
        ("s/step", 2): [NONE, *(optional(part.step_seconds, _seconds) + unsteady for part in ranks)],
        ("peak mem", 3): [NONE, *(optional(part.peak_memory_bytes, format_bytes) for part in ranks)],
    }
    return [
        Column(heading=heading, cells=cells, priority=priority, left=heading.startswith("vs"))
        for (heading, priority), cells in columns.items()
        if priority == 0 or {*cells[1:]} - {NONE, "", NONE + unsteady}
    ]


def _loss(value: float | None) -> str:
    return optional(value, "{:.3f}".format)


def _seconds(value: float) -> str:
    return f"{value:.3g}"


def _table_note(summary: StudySummary, left_out: int) -> Text:
    study, rates = summary.study, {part.best_learning_rate for part in summary.ranks} - {None}
    seeds = max((part.seeds for part in summary.ranks), default=0)
    parts = ["Nats/token"]
    if summary.compared_rows is not None:
        parts[0] += f" on {summary.compared_rows:,} held-out examples"
    parts += [f"mean of {seeds} seeds"] if seeds > 1 else ["one seed"] if seeds else []
    parts += [f"95 % over {_counted(len(summary.looks), 'look')}"] if summary.looks else []
    parts += [f"rate {next(iter(rates)):g}"] if len(rates) == 1 and len(study.learning_rates) > 1 else []
    parts += [f"{_counted(left_out, 'rank')} left out"] if left_out else []
    return Text(f"{', '.join(parts)}.", style="dim")


def _unsteady(summary: StudySummary) -> Iterator[Text]:
    if any(caution.kind == "unsteady_steps" for caution in summary.cautions):
        yield Text("? Times are unreliable: the machine was busy or changed its pace.", style="dim")


def _needs(summary: StudySummary) -> Iterator[RenderableType]:
    """Yield a line for each need; one line where all name the same rank."""
    if not summary.study.complete or summary.answer.status in ("one_rank", "no_answer"):
        return
    yield Text()
    found = [need for need in needs(summary) if need.rank is not None]
    if len({need.rank for need in found}) == 1:
        badges = {need.badge for need in found} - {""}
        within = f"{', '.join(sorted(badges))}, within {summary.study.tolerance:g} nats of the best"
        yield Text(f"Loss, value, time and memory point to rank {found[0].rank}{f' ({within})' if badges else ''}.")
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for right in (False, True, False, False):
        table.add_column(justify="right" if right else "left")
    table.add_row("", "rank", "", f"within {summary.study.tolerance:g}?", style="dim")
    for need in found:
        table.add_row(*_cells(need))
    if summary.recommendation.time.reason.code == "advice.unsteady_times":
        table.add_row("Fastest", NONE, "cannot tell from these times")
    yield table


def _cells(need: Need) -> tuple[RenderableType, ...]:
    return need.title, str(need.rank), need.fact, Text(need.badge, style="green" if need.badge == "proven" else "")


def _commands(summary: StudySummary, folder: Path) -> Iterator[Text]:
    """Yield the next commands, the adapter, and where the rest stands."""
    files, rank = StudyFolder(folder), summary.recommendation.use.rank
    for step in next_steps(summary, folder):
        yield _line(step.title, step.command, style="bold")
        if step.note:
            yield _line("", step.note, style="dim")
    if rank is not None and summary.study.complete:
        yield _line("Adapter", f"{files.arm_adapter((summary.study.targets, rank))}    (as PEFT saves it)")
    if files.report("html").is_file():
        yield _line("Report", str(files.report("html")))
        caveats = f"    ({_counted(len(summary.cautions), 'caveat')})" if summary.cautions else ""
        yield _line("More", f"{shlex.join(['lorascope', 'report', str(folder), '--notes'])}{caveats}")


def _line(title: str, text: str, style: str = "") -> Text:
    return Text.assemble((title.ljust(_LABEL + 1), "bold"), (text, style), no_wrap=True)
