"""Provenance: how a study was measured, what was studied, and where it ran."""

from collections.abc import Sequence

from lorascope.analysis.summary import RankSection, StudyInfo, StudySummary
from lorascope.text.language import tr
from lorascope.text.numbers import format_count, format_seconds, format_time
from lorascope.text.say import say
from lorascope.units import format_bytes


def measurement_text(summary: StudySummary) -> str:
    """Explain losses, intervals, times and memory in a paragraph."""
    seeds = summary.verdict.seeds
    covered = tr("Intervals cover the choice of held-out rows and, with one seed, nothing else.")
    if seeds > 1:
        covered = tr("Intervals cover the choice of held-out rows and of seeds ({seeds} seeds).", seeds=seeds)
    sentences = [
        tr("A loss is a sum of nats divided by a count of target tokens. Intervals are t intervals."),
        covered,
        tr("Ranks are compared on the same rows and seeds, so that what is hard for all ranks cancels out."),
        tr(
            "A rank is adequate when every other rank is shown to be better by no more than {tolerance} nats a token; "
            "the tests are corrected for the number of ranks (Holm).",
            tolerance=f"{summary.study.tolerance:g}",
        ),
    ]
    if any(part.step_seconds is not None for part in summary.ranks):
        measured = tr(
            "Times and memory come from a short run of each rank alone: times without the warm-up steps, memory with "
            "them. The runtime is the number of steps times the median step."
        )
        sentences.append(measured)
    return " ".join(sentences)


def study_details(summary: StudySummary) -> list[tuple[str, str]]:
    """Return names and values of the study, known values only."""
    study = summary.study
    precision = f"{study.dtype} ({say(study.dtype_reason)})" if study.dtype_reason else None
    rows = None if study.packing is None else tr("packed") if study.packing else tr("padded")
    kernels = None if study.kernels is None else tr("used") if study.kernels else tr("not used")
    resolved = [
        (tr("model"), study.model),
        (tr("base parameters"), _count(study.base_parameters)),
        (tr("model hash"), study.model_hash),
        (tr("data set"), study.dataset),
        (tr("training rows"), _count(study.train_examples)),
        (tr("tokens of one pass"), _count(study.tokens)),
        (tr("held-out rows"), _count(study.eval_examples)),
        (tr("held-out target tokens"), _count(study.eval_target_tokens)),
        (
            tr("bits per byte of the base"),
            None if study.base_bits_per_byte is None else f"{study.base_bits_per_byte:.4f}",
        ),
        (tr("data hash"), study.data_hash),
        (tr("adapted layers"), _count(study.adapted_modules)),
        (tr("alpha rule"), study.alpha_rule),
        (tr("alpha (scale) of each rank"), _alphas(summary.ranks)),
        (tr("limits"), _limits(study)),
        (tr("learning rates"), ", ".join(f"{value:g}" for value in study.learning_rates)),
        (tr("learning rates added at an edge"), _added_rates(summary)),
        (tr("early exit"), _early_exit(summary)),
        (tr("seeds"), ", ".join(str(seed) for seed in study.seeds)),
        (tr("steps of a trial"), _count(study.total_steps)),
        (tr("device"), study.device),
        (tr("precision of the base"), precision),
        (tr("rows are"), f"{rows} ({say(study.packing_reason)})" if study.packing_reason else None),
        (tr("compiled kernels"), f"{kernels} ({say(study.kernels_reason)})" if study.kernels_reason else None),
    ]
    return [(name, value) for name, value in resolved if value is not None]


def environment_details(summary: StudySummary) -> list[tuple[str, str]]:
    """Return names and values of the environment; none before the first start."""
    environment = summary.environment
    if environment is None:
        return []
    version = environment.lorascope_version
    if environment.commit:
        version = tr("{version}, commit {commit}", version=version, commit=environment.commit)
    processor = tr(
        "{name}, {cores} cores, {threads} threads used",
        name=environment.cpu,
        cores=environment.cpu_cores,
        threads=environment.threads,
    )
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    return [
        (tr("started"), format_time(environment.started)),
        (tr("starts"), str(environment.starts)),
        ("lorascope", version),
        ("Python", environment.python),
        (tr("packages"), packages),
        (tr("system"), environment.os),
        (tr("processor"), processor),
        (tr("memory"), format_bytes(environment.memory_bytes)),
        (tr("device"), environment.device_name),
    ]


def _added_rates(summary: StudySummary) -> str | None:
    added = [
        tr("rank {rank}: {rates}", rank=part.rank, rates=", ".join(f"{rate:g}" for rate in part.added_learning_rates))
        for part in summary.ranks
        if part.added_learning_rates
    ]
    return "; ".join(added) or None


def _early_exit(summary: StudySummary) -> str | None:
    budget = summary.study.budget
    if budget is None or not budget.stopped_trials:
        return None
    return tr(
        "{trials} trials stopped; {tokens} tokens went through the model, {share} of the {all} that the whole grid "
        "would have taken",
        trials=budget.stopped_trials,
        tokens=format_count(budget.tokens),
        share=f"{budget.share:.0%}",
        all=format_count(budget.exhaustive_tokens),
    )


def _alphas(ranks: Sequence[RankSection]) -> str | None:
    known = [part for part in ranks if part.lora_alpha is not None and part.scale is not None]
    return ", ".join(f"r {part.rank}: {part.lora_alpha:g} ({part.scale:.4g})" for part in known) or None


def _limits(study: StudyInfo) -> str | None:
    given = [
        (tr("peak memory"), format_bytes, study.max_memory_bytes),
        (tr("training alone"), format_seconds, study.max_seconds),
        (tr("adapter"), format_bytes, study.max_adapter_bytes),
    ]
    return ", ".join(f"{label} {shown(most)}" for label, shown, most in given if most is not None) or None


def _count(value: int | None) -> str | None:
    return None if value is None else format_count(value)
