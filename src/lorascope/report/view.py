"""A summary as the strings a page shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.analysis.paired import LEVEL
from lorascope.analysis.summary import RankPart, StudyPart, StudySummary, TrialPart
from lorascope.analysis.wording import chance
from lorascope.charts.colors import rank_colors
from lorascope.units import format_bytes, format_count, format_seconds

NONE = "–"
STATES = {
    "not_started": "not started",
    "running": "not finished",
    "finished": "finished",
    "stopped": "stopped early",
    "diverged": "diverged",
    "oom": "out of memory",
    "failed": "failed",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A header and rows of equal length; the first cell of a row names it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    colors: tuple[str, ...]
    """Colour of each row's rank."""


def rank_table(summary: StudySummary) -> Table:
    """Show every rank; a column that has no value for any rank is left out."""
    header = (
        "rank",
        "held-out loss (95% interval)",
        "above the best (95% interval)",
        "seeds",
        "training loss",
        "learning rate",
        "parameters",
        "adapter",
        "step alone",
        "run alone",
        "tokens/s",
        "peak memory",
    )
    rows = [_rank_row(part) for part in summary.ranks]
    return drop_empty(header, rows, row_colors(summary, [part.rank for part in summary.ranks]))


def row_colors(summary: StudySummary, ranks: Sequence[int]) -> tuple[str, ...]:
    """Give each row the colour of its rank."""
    colors = rank_colors([part.rank for part in summary.ranks])
    return tuple(colors[rank] for rank in ranks)


def drop_empty(header: Sequence[str], rows: Sequence[Sequence[str]], colors: tuple[str, ...]) -> Table:
    """Leave out the columns behind the second that no row has a value for."""
    kept = [
        column for column in range(len(header)) if column <= 1 or any(row[column] not in (NONE, "") for row in rows)
    ]
    return Table(
        header=tuple(header[column] for column in kept),
        rows=tuple(tuple(row[column] for column in kept) for row in rows),
        colors=colors,
    )


def claims_table(summary: StudySummary) -> Table:
    """Show what the tests show of every rank; no rows where nothing is compared."""
    claims = summary.verdict.claims
    return Table(
        header=(
            "rank",
            "within the tolerance of every other",
            "beyond the tolerance of another",
            "above another at all",
        ),
        rows=tuple(
            (str(part.rank), *(_shown(p) for p in (part.adequate_p, part.inadequate_p, part.worse_p)))
            for part in claims
        ),
        colors=row_colors(summary, [part.rank for part in claims]),
    )


def trial_table(summary: StudySummary) -> Table:
    """Show every trial and how it ended."""
    header = ("trial", "rank", "alpha", "learning rate", "seed", "outcome", "steps", "training loss", "held-out loss")
    return Table(
        header=header,
        rows=tuple(_trial_row(trial) for trial in summary.trials),
        colors=row_colors(summary, [trial.rank for trial in summary.trials]),
    )


def study_facts(summary: StudySummary) -> list[tuple[str, str]]:
    """Name and value of what was studied, known values only."""
    study = summary.study
    precision = f"{study.dtype} ({study.dtype_reason})" if study.dtype else None
    rows = None if study.packing is None else "packed" if study.packing else "padded"
    kernels = None if study.kernels is None else "used" if study.kernels else "not used"
    facts = [
        ("model", study.model),
        ("base parameters", _count(study.base_parameters)),
        ("model hash", study.model_hash),
        ("data set", study.dataset),
        ("training rows", _count(study.train_examples)),
        ("tokens of one pass", _count(study.tokens)),
        ("held-out rows", _count(study.eval_examples)),
        ("held-out target tokens", _count(study.eval_target_tokens)),
        ("data hash", study.data_hash),
        ("adapted layers", _count(study.adapted_modules)),
        ("alpha rule", study.alpha_rule),
        ("alpha (scale) of each rank", _alphas(summary.ranks)),
        ("limits", _limits(study)),
        ("learning rates", ", ".join(f"{value:g}" for value in study.learning_rates)),
        ("learning rates added at an edge", _added_rates(summary)),
        ("early exit", _early_exit(summary)),
        ("seeds", ", ".join(str(seed) for seed in study.seeds)),
        ("steps of a trial", _count(study.total_steps)),
        ("device", study.device),
        ("precision of the base", precision),
        ("rows are", f"{rows} ({study.packing_reason})" if rows else None),
        ("compiled kernels", f"{kernels} ({study.kernels_reason})" if kernels else None),
    ]
    return [(name, value) for name, value in facts if value is not None]


def environment_facts(summary: StudySummary) -> list[tuple[str, str]]:
    """Name and value of where the numbers came from; empty before the first start."""
    environment = summary.environment
    if environment is None:
        return []
    commit = f", commit {environment.commit}" if environment.commit else ""
    return [
        ("started", environment.started),
        ("starts", str(environment.starts)),
        ("lorascope", f"{environment.lorascope_version}{commit}"),
        ("Python", environment.python),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))),
        ("system", environment.os),
        ("processor", f"{environment.cpu}, {environment.cpu_cores} cores, {environment.threads} threads used"),
        ("memory", format_bytes(environment.memory_bytes)),
        ("device", environment.device_name),
    ]


def _added_rates(summary: StudySummary) -> str | None:
    added = [
        f"rank {part.rank}: {', '.join(f'{rate:g}' for rate in part.added_learning_rates)}"
        for part in summary.ranks
        if part.added_learning_rates
    ]
    return "; ".join(added) or None


def _early_exit(summary: StudySummary) -> str | None:
    budget = summary.study.budget
    if budget is None or not budget.stopped_trials:
        return None
    return (
        f"{budget.stopped_trials} trials stopped; {format_count(budget.tokens)} tokens went through the model, "
        f"{budget.share:.0%} of the {format_count(budget.exhaustive_tokens)} that the whole grid would have taken"
    )


def _rank_row(part: RankPart) -> tuple[str, ...]:
    best = part.excess_loss == 0 and part.excess_loss_ci95 == (0.0, 0.0)
    return (
        str(part.rank),
        show_interval(part.eval_loss, part.eval_loss_ci95),
        "lowest" if best else show_interval(part.excess_loss, part.excess_loss_ci95),
        str(part.seeds),
        show_loss(part.train_loss),
        f"{part.best_learning_rate:g}" if part.best_learning_rate is not None else NONE,
        _count(part.trainable_parameters) or NONE,
        format_bytes(part.adapter_bytes) if part.adapter_bytes is not None else NONE,
        format_seconds(part.step_seconds) if part.step_seconds is not None else NONE,
        format_seconds(part.runtime_seconds) if part.runtime_seconds is not None else NONE,
        f"{part.tokens_per_second:.0f}" if part.tokens_per_second is not None else NONE,
        format_bytes(part.peak_memory_bytes) if part.peak_memory_bytes is not None else NONE,
    )


def _alphas(ranks: Sequence[RankPart]) -> str | None:
    known = [part for part in ranks if part.lora_alpha is not None and part.scale is not None]
    return ", ".join(f"r {part.rank}: {part.lora_alpha:g} ({part.scale:.4g})" for part in known) or None


def _limits(study: StudyPart) -> str | None:
    given = [
        ("peak memory", format_bytes, study.max_memory_bytes),
        ("training alone", format_seconds, study.max_seconds),
        ("adapter", format_bytes, study.max_adapter_bytes),
    ]
    return ", ".join(f"{label} {shown(most)}" for label, shown, most in given if most is not None) or None


def _trial_row(trial: TrialPart) -> tuple[str, ...]:
    outcome = STATES[trial.outcome]
    return (
        trial.trial_id,
        str(trial.rank),
        f"{trial.lora_alpha:g}",
        f"{trial.learning_rate:g}",
        str(trial.seed),
        f"{outcome}: {trial.message}" if trial.message else outcome,
        str(trial.steps),
        show_loss(trial.train_loss),
        show_loss(trial.eval_loss),
    )


def show_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    """Write a number and its interval; the number alone where there is none."""
    if value is None or interval is None:
        return show_loss(value)
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def _shown(p: float) -> str:
    return f"shown ({chance(p)})" if p <= LEVEL else f"not shown ({chance(p)})"


def show_loss(value: float | None) -> str:
    """Write a loss or a difference of losses."""
    return NONE if value is None else f"{value:.4f}"


def _count(value: int | None) -> str | None:
    return None if value is None else format_count(value)
