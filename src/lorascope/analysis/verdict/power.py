"""Cautions about statistical power and model capacity."""

import math
from collections.abc import Sequence
from dataclasses import replace

from lorascope.analysis.estimates.paired import Uncertain, joint_degrees
from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.findings import Findings
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.verdict.decide import LEAST
from lorascope.analysis.verdict.next_look import measured_prices
from lorascope.analysis.verdict.schema import CautionSection, RemedySection
from lorascope.analysis.yardsticks import seen_target_tokens
from lorascope.message import Message, Sentences, Value
from lorascope.records import Environment

_ABSENT = Message("caution.absent")
MOST_SEEDS = 16
MOST_ROWS = 16
"""Beyond so many seeds, or times as many rows, a larger tolerance is the better advice."""
BITS_PER_PARAMETER = 2.0
"""Knowledge a trained parameter was found to hold at most (Allen-Zhu and Li, arXiv 2404.05405, 2024)."""


def underpowered(findings: Findings) -> CautionSection | None:
    """Warn about an undecided rank, with what would decide it; the verdict of a sequential study says so itself."""
    remedy = None if findings.data.looks else find_remedy(findings)
    return CautionSection(kind="underpowered", text=(remedy.text,)) if remedy else None


def find_remedy(findings: Findings) -> RemedySection | None:
    """Find the seeds, or else the rows, that make an undecided rank's interval as narrow as the tolerance.

    The widest of the undecided ranks' intervals stands for all. More seeds narrow it twice: they average more, and
    their spread is known better, so that the t quantile falls too.
    """
    comparison, data, rows = findings.comparison, findings.data, findings.compared_rows
    if comparison is None or data.resolved is None:
        return None
    in_question = data.looks[-1].next_ranks if data.looks else tuple(comparison.excess)
    rank, half = _widest_undecided(comparison, in_question, data.spec.tolerance)
    if half <= data.spec.tolerance:
        return None
    times = _times_rows(comparison.differences[rank, comparison.best], data.spec.tolerance)
    if rows * times < LEAST:  # the verdict asks for more
        return None
    compared = data.looks[-1].ranks if data.looks else tuple(comparison.excess)
    text = _remedy(rank, comparison, data.spec.tolerance, times, rows=rows, freedom=len(compared) - 1)
    return RemedySection(text=text, seconds=_seconds(data, text, seeds=len(comparison.seeds), ranks=len(in_question)))


def find_limit(data: StudyData, remedy: RemedySection | None) -> Sentences:
    """Name what keeps a sequential study from a verdict, and what would bring one; empty for other studies."""
    last = data.looks[-1] if data.looks else None
    if last is None or last.next == "decided":
        return ()
    limits = {
        "steps": Message("limit.steps"),
        "exhausted": Message("limit.exhausted", rows=last.rows, seeds=len(last.seeds)),
        "budget": Message("limit.time", seconds=last.next_seconds),
    }
    limit = limits.get(last.next, Message("limit.goes_on"))
    if remedy is None or last.next not in ("exhausted", "budget"):
        return (limit,)
    needed = remedy.text.values
    takes: Sentences = ()
    if remedy.seconds is not None and isinstance(seeds := needed.get("more_seeds"), int):
        takes = (Message("limit.takes_seeds", count=seeds - len(last.seeds), seconds=remedy.seconds),)
    elif remedy.seconds is not None and isinstance(rows := needed.get("rows"), int):
        takes = (Message("limit.takes_rows", count=rows - last.rows, seconds=remedy.seconds),)
    return (limit, remedy.text, *takes)


def _seconds(data: StudyData, remedy: Message, *, seeds: int, ranks: int) -> float | None:
    """Price the further seeds or rows of a remedy by what the study took so far."""
    resolved = data.resolved
    if resolved is None or resolved.eval_tokens is None:
        return None
    prices, held = measured_prices(data), resolved.eval_examples
    now = data.looks[-1].rows if data.looks else held
    if isinstance(wanted := remedy.values.get("more_seeds"), int):
        tokens = (wanted - seeds) * ranks * (prices.trial + (now - held) * prices.row)
    elif isinstance(rows := remedy.values.get("rows"), int):
        tokens = (rows - now) * ranks * seeds * prices.row
    else:
        return None
    return tokens * prices.token_seconds or None


def _remedy(rank: int, comparison: Comparison, tolerance: float, times: float, *, rows: int, freedom: int) -> Message:
    """Name the seeds, or else the rows, that make an interval as narrow as the tolerance; or that none would."""
    found = comparison.differences[rank, comparison.best]
    half, seeds = _half(found), len(comparison.seeds)
    wider = range(seeds + 1, MOST_SEEDS + 1) if seeds > 1 else ()
    halves = {n: _half_width(found, n / seeds, freedom * (n - 1)) for n in wider}
    more = next((n for n, width in halves.items() if width <= tolerance), None)
    if more is not None:
        return Message(
            "caution.underpowered_seeds", rank=rank, half=half, tolerance=tolerance, seeds=seeds, more_seeds=more
        )
    if times <= MOST_ROWS:
        wanted = math.ceil(rows * times)
        return Message("caution.underpowered_rows", rank=rank, half=half, tolerance=tolerance, rows=wanted)
    if halves:
        reach = halves[MOST_SEEDS]
        return Message(
            "caution.underpowered_far", rank=rank, half=half, tolerance=tolerance, reach=reach, most=MOST_SEEDS
        )
    return Message("caution.underpowered_very_far", rank=rank, half=half, tolerance=tolerance, most=MOST_ROWS)


def _widest_undecided(comparison: Comparison, ranks: Sequence[int], tolerance: float) -> tuple[int, float]:
    """Return the undecided rank with the widest interval, and half its width; a width of 0 without any."""
    widths = (
        (rank, (excess.high - excess.low) / 2)
        for rank, excess in comparison.excess.items()
        if rank in ranks and excess.low <= tolerance < excess.high
    )
    return max(widths, key=lambda found: found[1], default=(0, 0.0))


def _half_width(found: Uncertain, times: float, freedom: int) -> float:
    """Return half the width of a difference's 95% interval with so many times the seeds, all else as it is."""
    if found.seeds_variance == 0:
        return _half(found)
    part = found.seeds_variance / times
    variance = found.variance - found.seeds_variance + part
    return _half(replace(found, variance=variance, degrees=joint_degrees(freedom, variance, part)))


def _half(found: Uncertain) -> float:
    interval = found.interval()
    return (interval.high - interval.low) / 2


def _times_rows(found: Uncertain, tolerance: float) -> float:
    """Return how many times as many rows would narrow the interval to the tolerance; infinite where none would."""
    allowed = found.variance * (tolerance / _half(found)) ** 2 - found.seeds_variance
    return (found.variance - found.seeds_variance) / allowed if allowed > 0 else math.inf


def seeds_added(findings: Findings) -> CautionSection | None:
    """Warn about seeds that were added to a study of several, which may have been read before."""
    environments, now = findings.data.environments, len(findings.data.spec.seeds)
    first = len(environments[0].seeds) if environments else now
    if not 1 < first < now:  # one seed shows nothing that could have been acted on
        return None
    return CautionSection(kind="seeds_added", text=(Message("caution.seeds_added", first=first, seeds=now),))


def below_capacity(findings: Findings) -> CautionSection | None:
    """Warn about rows that hold less than the smallest adapter can: capacity was not tested."""
    seen, adapters = seen_target_tokens(findings.data), findings.data.adapters
    base = next((trial.base_eval_loss for trial in findings.trials if trial.base_eval_loss), None)
    if seen is None or base is None or len(adapters) < 2:
        return None
    bits_per_token = base / math.log(2)
    rank = min(adapters)
    capacity = BITS_PER_PARAMETER * adapters[rank].trainable_parameters
    if seen * bits_per_token >= capacity:
        return None
    found = Message(
        "caution.below_capacity",
        rank=rank,
        capacity=capacity,
        bits=BITS_PER_PARAMETER,
        tokens=seen,
        held=seen * bits_per_token,
        bits_per_token=bits_per_token,
        enough=capacity / bits_per_token,
    )
    return CautionSection(kind="below_capacity", text=(found,))


def environment_changed(findings: Findings) -> CautionSection | None:
    """Warn about a study that was continued elsewhere or with other versions: its numbers have two origins."""
    environments = findings.data.environments
    if not environments:
        return None
    first = _origin(environments[0])
    changes: dict[Value, Message] = {
        name: Message("caution.changed", name=name, before=first.get(name, _ABSENT), after=value)
        for environment in environments[1:]
        for name, value in _origin(environment).items()
        if value != first.get(name)
    }
    if not changes:
        return None
    found = Message("caution.environment_changed", changes=tuple(changes.values()))
    return CautionSection(kind="environment_changed", text=(found,))


def _origin(environment: Environment) -> dict[Value, Value]:
    """Return what a number may depend on, by name."""
    version: Value = environment.lorascope_version
    if environment.commit:
        version = Message("caution.version", version=version, commit=environment.commit)
    origin: dict[Value, Value] = {"lorascope": version}
    origin.update(environment.packages)
    return origin | {
        "Python": environment.python,
        Message("caution.processor"): environment.cpu,
        Message("caution.device"): environment.device_name,
        Message("caution.threads"): environment.threads,
    }
