"""Cautions about statistical power and model capacity."""

import math

from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.findings import Findings
from lorascope.analysis.verdict.decide import LEAST
from lorascope.analysis.verdict.schema import CautionSection
from lorascope.message import Message, Value
from lorascope.records import Environment

_ABSENT = Message("caution.absent")
BITS_PER_PARAMETER = 2.0
"""Knowledge a trained parameter was found to hold at most (Allen-Zhu and Li, arXiv 2404.05405, 2024)."""


def underpowered(findings: Findings) -> CautionSection | None:
    """Warn about an undecided rank, with the rows or seeds that make its interval as narrow as the tolerance."""
    comparison, resolved = findings.comparison, findings.data.resolved
    tolerance = findings.data.spec.tolerance
    rank, half = _widest_undecided(comparison, tolerance) if comparison else (0, 0.0)
    if resolved is None or half <= tolerance:
        return None
    # A standard error falls with the square root of what is averaged
    times = (half / tolerance) ** 2
    rows = math.ceil(resolved.eval_examples * times)
    if rows < LEAST:  # the verdict asks for more
        return None
    seeds = len(findings.choices[rank].trials)
    if seeds > 1:
        found = Message(
            "caution.underpowered_seeds",
            rank=rank,
            half=half,
            tolerance=tolerance,
            times=times,
            rows=rows,
            seeds=seeds,
            more_seeds=math.ceil(seeds * times),
        )
    else:
        found = Message("caution.underpowered", rank=rank, half=half, tolerance=tolerance, times=times, rows=rows)
    return CautionSection(kind="underpowered", text=(found,))


def _widest_undecided(comparison: Comparison, tolerance: float) -> tuple[int, float]:
    """Return the undecided rank with the widest interval, and half its width; a width of 0 without any."""
    widths = (
        (rank, (excess.high - excess.low) / 2)
        for rank, excess in comparison.excess.items()
        if excess.low <= tolerance < excess.high
    )
    return max(widths, key=lambda found: found[1], default=(0, 0.0))


def below_capacity(findings: Findings) -> CautionSection | None:
    """Warn about rows that hold less than the smallest adapter can: capacity was not tested."""
    resolved, steps_per_epoch = findings.data.resolved, findings.data.steps_per_epoch
    adapters = findings.data.adapters
    base = next((trial.base_eval_loss for trial in findings.trials if trial.base_eval_loss), None)
    if resolved is None or steps_per_epoch is None or base is None or len(adapters) < 2:
        return None
    # Rows seen again hold nothing new
    seen = resolved.train_target_tokens * min(1.0, resolved.total_steps / steps_per_epoch)
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
