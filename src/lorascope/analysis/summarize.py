"""Summarise a study: records to estimates, verdict, cautions and costs, without a sentence."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorascope.analysis.adapters.usage import (
    examined_trials,
    generic_text_part,
    spectra_parts,
    truncation_part,
    with_forgetting,
)
from lorascope.analysis.budget import find_budget
from lorascope.analysis.cost.pareto import mark_pareto
from lorascope.analysis.cost.predicted import predicted_part
from lorascope.analysis.cost.solo import with_costs
from lorascope.analysis.cost.solo_runs import measured_cost
from lorascope.analysis.cost.whole_run import costs_part, time_book
from lorascope.analysis.estimates.losses import Estimate, final_train_loss
from lorascope.analysis.estimates.ranks import Comparison, RankChoice, choose, compare
from lorascope.analysis.findings import Findings
from lorascope.analysis.looks import look_sections
from lorascope.analysis.metrics.sections import metric_sections
from lorascope.analysis.metrics.token_accuracy import with_token_accuracy
from lorascope.analysis.readings import read_study
from lorascope.analysis.section import Interval
from lorascope.analysis.settings import settings_section
from lorascope.analysis.settings_schema import EnvironmentSection
from lorascope.analysis.study_data import StudyData, load_study
from lorascope.analysis.summary import (
    RankSection,
    SetSummary,
    StudyInfo,
    StudySummary,
    TrialSection,
)
from lorascope.analysis.target_sets import compare_sets
from lorascope.analysis.verdict.answer import find_answer
from lorascope.analysis.verdict.assess import assess
from lorascope.analysis.verdict.cautions import find_cautions
from lorascope.analysis.yardsticks import bits_per_byte, seen_target_tokens
from lorascope.records import TrialOutcome, TrialRecord
from lorascope.search.best import last_finite
from lorascope.search.trials import planned_alphas, planned_rates
from lorascope.store.columns import StepColumns
from lorascope.units import from_megabytes, parse_bytes


def summarize(folder: Path) -> StudySummary:
    """Summarise a study folder. Raises InputError when it is not one."""
    return summarize_data(load_study(folder))


def summarize_data(data: StudyData) -> StudySummary:
    """Summarise records, finished or not; of several sets of target modules, each alone and then all compared."""
    found = [_summarize(one) for one in (data, *data.others)]
    if len(found) == 1:
        return StudySummary(**_fields(found[0][0]), time_book=time_book(data.activities))
    summaries = {findings.data.targets: summary for summary, findings in found}
    sets = compare_sets(summaries, {findings.data.targets: findings for _, findings in found})
    fields = _fields(summaries[sets.use])
    complete = all(summary.study.complete for summary in summaries.values())
    study = summaries[sets.use].study.model_copy(update={"complete": complete})
    return StudySummary(**{**fields, "study": study}, target_sets=sets, time_book=time_book(data.activities))


def _fields(summary: SetSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in SetSummary.model_fields}


def _summarize(data: StudyData) -> tuple[SetSummary, Findings]:
    trials = tuple(_trial(data, trial) for trial in data.trials)
    choices = choose(data, trials)
    comparison = compare(data, choices, trials)
    ranks = mark_pareto([_rank(data, rank, choices.get(rank), comparison) for rank in data.ranks])
    ranks = with_token_accuracy(data, ranks, choices)
    examined = examined_trials(data, ranks, trials)
    ranks = with_costs(data, with_forgetting(data, ranks, examined))
    found = Findings(data=data, trials=trials, choices=choices, comparison=comparison)
    verdict, recommendation = assess(found, ranks)
    truncation = truncation_part(data, examined)
    summary = SetSummary(
        study=_study(data, trials),
        settings=settings_section(data),
        trials=trials,
        ranks=ranks,
        base_eval_loss=found.base_eval_loss,
        answer=find_answer(found, verdict, recommendation, truncation),
        recommendation=recommendation,
        verdict=verdict,
        cautions=find_cautions(found),
        environment=_environment(data),
        readings=read_study(found, ranks, recommendation),
        spectra=spectra_parts(data, examined),
        truncation=truncation,
        generic_text=generic_text_part(data),
        predicted=predicted_part(data, ranks),
        costs=costs_part(data, ranks, trials),
        metrics=metric_sections(data, choices),
        looks=look_sections(data),
    )
    return summary, found


def _study(data: StudyData, trials: Sequence[TrialSection]) -> StudyInfo:
    spec, resolved = data.spec, data.resolved
    same = {"alpha_rule", "tolerance", "convergence_band", "max_seconds"}
    base = next((trial.base_eval_loss for trial in trials if trial.base_eval_loss is not None), None)
    ended = bool(trials) and all(trial.outcome not in ("not_started", "running") for trial in trials)
    return StudyInfo.model_validate(
        {
            **{name: getattr(resolved, name, None) for name in StudyInfo.model_fields},
            **({} if resolved else {"model": spec.model, "dataset": " + ".join(spec.dataset_names)}),
            **spec.model_dump(include=same),
            "tokens": resolved.train_tokens if resolved else None,
            "data_notes": resolved.data_notes if resolved else (),
            "targets": data.targets,
            "adapted_modules": len(resolved.target_modules) if resolved else None,
            "learning_rates": sorted({rate for settings in data.settings.values() for _, rate in settings}),
            "seeds": data.seeds,
            "complete": ended and not data.goes_on,
            "max_memory_bytes": parse_bytes(spec.max_memory) if spec.max_memory else None,
            "max_adapter_bytes": from_megabytes(spec.max_adapter_mb) if spec.max_adapter_mb else None,
            "budget": find_budget(data, trials),
            "base_bits_per_byte": bits_per_byte(base, resolved),
        }
    )


def _trial(data: StudyData, trial: TrialRecord) -> TrialSection:
    steps, evaluations = data.steps[trial.trial_id], data.evaluations[trial.trial_id]
    outcome = data.outcomes.get(trial.trial_id)
    last = last_finite(evaluations)
    base = next((record for record in evaluations if record.step == 0), None)
    return TrialSection(
        trial_id=trial.trial_id,
        targets=trial.targets,
        rank=trial.rank,
        lora_alpha=trial.lora_alpha,
        learning_rate=trial.learning_rate,
        seed=trial.seed,
        outcome=outcome.state if outcome else "running" if len(steps) else "not_started",
        message=(outcome.message,) if outcome and outcome.message else (),
        steps=_steps_done(outcome, steps),
        train_loss=final_train_loss(steps, data.steps_per_epoch),
        eval_loss=last.loss if last else None,
        eval_step=last.step if last else None,
        base_eval_loss=base.loss if base else None,
    )


def _steps_done(outcome: TrialOutcome | None, steps: StepColumns) -> int:
    """Count the updates made: the outcome knows them once the trial ended, the records while it runs."""
    if outcome is not None and outcome.state != "running":
        return outcome.steps
    return int(steps.step[-1]) if len(steps) else 0


def _rank(data: StudyData, rank: int, choice: RankChoice | None, comparison: Comparison | None) -> RankSection:
    loss = comparison.loss.get(rank) if comparison else None
    excess = comparison.excess.get(rank) if comparison else None
    adapter, cost = data.adapters.get(rank), data.costs.get(rank)
    alone = measured_cost(rank, adapter, cost, data.resolved.total_steps if data.resolved else None)
    trial = next(
        (t for t in data.trials if t.rank == rank and (choice is None or t.lora_alpha == choice.lora_alpha)), None
    )
    alpha = trial.lora_alpha if trial else planned_alphas(data.spec, rank)[0]
    rates = data.rates(rank, alpha)
    eval_loss = loss.value if loss else choice.rows.loss if choice else None
    tokens = seen_target_tokens(data)
    return RankSection(
        rank=rank,
        lora_alpha=trial.lora_alpha if trial else None,
        best_learning_rate=choice.learning_rate if choice else None,
        seeds=len(choice.trials) if choice else 0,
        eval_loss=eval_loss,
        bits_per_byte=bits_per_byte(eval_loss, data.resolved),
        eval_loss_ci95=_interval(loss),
        excess_loss=excess.value if excess else None,
        excess_loss_ci95=_interval(excess),
        train_loss=choice.train_loss if choice else None,
        trainable_parameters=adapter.trainable_parameters if adapter else None,
        target_tokens_per_parameter=tokens / adapter.trainable_parameters if tokens and adapter else None,
        saved_rank=adapter.saved_rank if adapter else None,
        adapter_bytes=alone.adapter_bytes,
        training_state_bytes=(
            adapter.parameter_bytes + adapter.gradient_bytes + adapter.optimizer_bytes if adapter else None
        ),
        step_seconds=alone.step_seconds,
        runtime_seconds=alone.runtime_seconds,
        tokens_per_second=cost.tokens_per_second if cost else None,
        peak_memory_bytes=alone.peak_memory_bytes,
        memory=None,
        scale=trial.scale if trial else None,
        learning_rates=rates,
        added_learning_rates=tuple(rate for rate in rates if rate not in planned_rates(data.spec, rank, alpha)),
        lora_alphas=tuple(dict.fromkeys(alpha for alpha, _ in data.settings[rank])),
    )


def _interval(estimate: Estimate | None) -> Interval | None:
    return (estimate.low, estimate.high) if estimate else None


def _environment(data: StudyData) -> EnvironmentSection | None:
    if not data.environments:
        return None
    fields = asdict(data.environments[-1])
    shown = {name: fields[name] for name in EnvironmentSection.model_fields if name in fields}
    return EnvironmentSection.model_validate({**shown, "starts": len(data.environments)})
