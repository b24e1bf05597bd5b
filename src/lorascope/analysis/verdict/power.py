"""Cautions about what a study of this size, in these places, could have shown at all."""

import math

from lorascope.analysis.findings import Findings
from lorascope.analysis.summary import CautionSection
from lorascope.analysis.verdict.decide import LEAST
from lorascope.records import Environment
from lorascope.text.language import tr
from lorascope.text.numbers import format_count, nats

BITS_PER_PARAMETER = 2.0
"""Knowledge a trained parameter was found to hold at most (Allen-Zhu and Li, arXiv 2404.05405, 2024)."""


def underpowered(findings: Findings) -> CautionSection | None:
    """Say how many more rows or seeds an undecided rank would need for an interval as narrow as the tolerance."""
    comparison, resolved = findings.comparison, findings.data.resolved
    tolerance = findings.data.spec.tolerance
    if comparison is None or resolved is None:
        return None
    half = {
        rank: (excess.high - excess.low) / 2
        for rank, excess in comparison.excess.items()
        if excess.low <= tolerance < excess.high
    }
    rank = max(half, key=lambda rank: half[rank], default=None)
    if rank is None or half[rank] <= tolerance:
        return None
    # A standard error falls with the square root of what is averaged
    times = (half[rank] / tolerance) ** 2
    rows = math.ceil(resolved.eval_examples * times)
    if rows < LEAST:  # the verdict asks for more
        return None
    seeds = len(findings.choices[rank].trials)
    values = {
        "rank": rank,
        "half": nats(half[rank]),
        "tolerance": tolerance,
        "times": times,
        "rows": rows,
    }
    if seeds > 1:
        text = tr(
            "Too few held-out rows or seeds for the effect asked about: the interval of rank {rank} reaches {half} to "
            "either side, and the tolerance is {tolerance:g} nats a token. To tell a difference of that size would "
            "take about {times:,.1f} times as many: {rows:,} held-out rows, or {more_seeds} seeds in place of {seeds} "
            "where seeds make most of it.",
            **values,
            seeds=seeds,
            more_seeds=math.ceil(seeds * times),
        )
    else:
        text = tr(
            "Too few held-out rows or seeds for the effect asked about: the interval of rank {rank} reaches {half} to "
            "either side, and the tolerance is {tolerance:g} nats a token. To tell a difference of that size would "
            "take about {times:,.1f} times as many: {rows:,} held-out rows.",
            **values,
        )
    return CautionSection(kind="underpowered", text=text)


def below_capacity(findings: Findings) -> CautionSection | None:
    """Say when the rows trained on hold less than the smallest adapter can: then capacity was not tested."""
    resolved, steps_per_epoch = findings.data.resolved, findings.data.steps_per_epoch
    adapters = findings.data.adapters
    base = next((trial.base_eval_loss for trial in findings.trials if trial.base_eval_loss), None)
    if resolved is None or steps_per_epoch is None or base is None or len(adapters) < 2:
        return None
    # A second pass over the same rows brings nothing new to hold
    seen = resolved.train_target_tokens * min(1.0, resolved.total_steps / steps_per_epoch)
    bits_per_token = base / math.log(2)
    rank = min(adapters)
    capacity = BITS_PER_PARAMETER * adapters[rank].trainable_parameters
    if seen * bits_per_token >= capacity:
        return None
    text = tr(
        "The run is shorter than where low ranks are known to fall behind. By a rule of thumb rank {rank} can hold "
        "{capacity} bits ({bits:g} a parameter), and the roughly {tokens} different target tokens trained on hold at "
        "most {held} ({bits_per_token:.2f} bits a token, the base model's held-out loss). From about {enough} target "
        "tokens on, more rank may help where it does not here.",
        rank=rank,
        capacity=format_count(capacity),
        bits=BITS_PER_PARAMETER,
        tokens=format_count(seen),
        held=format_count(seen * bits_per_token),
        bits_per_token=bits_per_token,
        enough=format_count(capacity / bits_per_token),
    )
    return CautionSection(kind="below_capacity", text=text)


def environment_changed(findings: Findings) -> CautionSection | None:
    """Say when a study was continued elsewhere or with other versions: its numbers then have two origins."""
    environments = findings.data.environments
    if not environments:
        return None
    first, absent = _origin(environments[0]), tr("absent")
    changes = {
        name: tr("{name} {before}, later {after}", name=name, before=first.get(name, absent), after=value)
        for environment in environments[1:]
        for name, value in _origin(environment).items()
        if value != first.get(name)
    }
    if not changes:
        return None
    text = tr(
        "The study was continued in another environment ({changes}). Losses before and after may differ in rounding, "
        "and times and memory were measured where each rank was first run.",
        changes="; ".join(changes.values()),
    )
    return CautionSection(kind="environment_changed", text=text)


def _origin(environment: Environment) -> dict[str, str]:
    """What a number may depend on."""
    version = environment.lorascope_version
    if environment.commit:
        version = tr("{version} at {commit}", version=version, commit=environment.commit)
    return {
        "lorascope": version,
        **environment.packages,
        "Python": environment.python,
        tr("processor"): environment.cpu,
        tr("device"): environment.device_name,
        tr("threads"): str(environment.threads),
    }
