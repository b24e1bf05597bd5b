"""Pros and cons of LoRA with the numbers of a study, and what it did not measure."""

from collections.abc import Callable, Iterator, Sequence

from lorascope.analysis.adapters.schema import ForgettingSection
from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.text.language import tr, trn
from lorascope.text.numbers import format_count, format_seconds, interval
from lorascope.text.say import say
from lorascope.text.tables.overview import unsteady_mark
from lorascope.units import format_bytes


def pros(summary: StudySummary) -> Iterator[str]:
    """Write what LoRA gained in this study."""
    yield from _balance(summary, "tradeoff.parameters")
    yield from _full_fine_tuning(summary)
    yield from _balance(summary, "tradeoff.loss_fell")
    smallest, base = summary.ranks[0], summary.settings.base_bytes
    if smallest.adapter_bytes is not None and base:
        yield tr(
            "A copy of the whole model takes {base}; the adapter of rank {rank} takes {size}, {share} of that.",
            base=format_bytes(base),
            rank=smallest.rank,
            size=format_bytes(smallest.adapter_bytes),
            share=f"{smallest.adapter_bytes / base:.2%}",
        )
    yield trn(
        "The base's weights do not change, so one copy of them serves every adapter: here {count} adapter.",
        "The base's weights do not change, so one copy of them serves every adapter: here {count} adapters.",
        len(summary.trials),
    )
    kept = [(rank, found) for rank, found in _forgetting(summary) if not _forgot(found)]
    if kept:
        yield tr("No forgetting is shown in the loss on other text: {changes}.", changes=_changes(kept))


def cons(summary: StudySummary) -> Iterator[str]:
    """Write what LoRA cost in this study."""
    yield from _balance(summary, "tradeoff.loss_rose")
    yield from _smallest_rank(summary)
    yield from _larger_rank(summary)
    base = summary.settings.base_bytes
    if base:
        yield tr(
            "The model does not get smaller: its weights, {base}, stay in memory in training and in use.",
            base=format_bytes(base),
        )
    yield tr(
        "Rank, alpha and learning rate have to be chosen: this study took {runs} for it.",
        runs=trn("{count} run", "{count} runs", len(summary.trials)),
    )
    lost = [(rank, found) for rank, found in _forgetting(summary) if _forgot(found)]
    if lost:
        yield tr("The loss on other text rose, which is forgetting: {changes}.", changes=_changes(lost))


def not_measured(summary: StudySummary) -> Iterator[str]:
    """Write what the study did not measure."""
    yield tr("Full fine-tuning was not run, so what LoRA itself costs in loss is not known here.")
    if not _forgetting(summary):
        yield tr("Forgetting was not measured: the loss on other text was not taken before and after training.")
    if all(part.cost is None for part in summary.ranks):
        yield tr("Time and memory of each rank by itself were not measured: the solo runs were left out.")


def _balance(summary: StudySummary, *codes: str) -> Iterator[str]:
    return (say(message) for message in summary.readings.balance if message.code in codes)


def _full_fine_tuning(summary: StudySummary) -> Iterator[str]:
    """Compare full fine-tuning with the smallest rank, prediction with prediction; else the counted bytes."""
    predicted, peak = summary.predicted, summary.ranks[0].peak_memory_bytes
    if predicted is None or predicted.full_fine_tuning is None or not predicted.ranks or peak is None:
        yield from _balance(summary, "tradeoff.memory")
        return
    smallest = predicted.ranks[0]
    yield tr(
        "The predicted peak memory is {full} for full fine-tuning and {alone} at rank {rank}, where {peak} was "
        "measured.",
        full=format_bytes(predicted.full_fine_tuning.peak_memory_bytes.predicted),
        rank=smallest.rank,
        alone=format_bytes(smallest.peak_memory_bytes.predicted),
        peak=format_bytes(peak),
    )


def _smallest_rank(summary: StudySummary) -> Iterator[str]:
    """Say whether the smallest rank is worse than the largest that has a held-out loss."""
    reading = summary.readings.ranks[0]
    if reading.excess_over_largest is None or reading.excess_over_largest_ci95 is None:
        return
    excess = interval(reading.excess_over_largest, *reading.excess_over_largest_ci95)
    high = max(part.rank for part in summary.ranks if part.eval_loss is not None)
    if reading.excess_over_largest_ci95[0] > 0:
        found = tr(
            "A low rank costs quality: the held-out loss of rank {low} minus that of rank {high} is {excess}.",
            low=reading.rank,
            high=high,
            excess=excess,
        )
    else:
        found = tr(
            "A low rank may cost quality. That is not shown here: the held-out loss of rank {low} minus that of rank "
            "{high} is {excess}.",
            low=reading.rank,
            high=high,
            excess=excess,
        )
    yield f"{found} {tr('With one seed, in that seed only.')}" if summary.verdict.seeds == 1 else found


def _larger_rank(summary: StudySummary) -> Iterator[str]:
    """Say what the largest rank takes more than the smallest."""
    low, high = summary.ranks[0], summary.ranks[-1]
    kinds: tuple[tuple[str, Callable[[RankSection], float | None], Callable[[float], str]], ...] = (
        (tr("parameters"), lambda part: part.trainable_parameters, format_count),
        (tr("adapter"), lambda part: part.adapter_bytes, format_bytes),
        (tr("peak memory"), lambda part: part.peak_memory_bytes, format_bytes),
        (tr("time of a step"), lambda part: None if unsteady_mark(summary) else part.step_seconds, format_seconds),
    )
    grown = [
        tr("{what} from {low} to {high}", what=what, low=write(before), high=write(after))
        for what, read, write in kinds
        if (before := read(low)) is not None and (after := read(high)) is not None
    ]
    if low.rank != high.rank and grown:
        yield tr(
            "A higher rank costs more. From rank {low} to {high}: {grown}.",
            low=low.rank,
            high=high.rank,
            grown=", ".join(grown),
        )


def _forgetting(summary: StudySummary) -> list[tuple[int, ForgettingSection]]:
    found = ((part.rank, part.forgetting) for part in summary.ranks)
    return [(rank, one) for rank, one in found if one is not None and one.change is not None and one.change_ci95]


def _forgot(one: ForgettingSection) -> bool:
    return one.change_ci95 is not None and one.change_ci95[0] > 0


def _changes(found: Sequence[tuple[int, ForgettingSection]]) -> str:
    return ", ".join(
        tr("rank {rank} by {change}", rank=rank, change=interval(one.change, *one.change_ci95))
        for rank, one in found
        if one.change is not None and one.change_ci95 is not None
    )
