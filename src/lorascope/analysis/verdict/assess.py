"""Verdict and recommendation of a study, from its records and the comparison of its ranks."""

from collections.abc import Sequence
from dataclasses import replace

from lorascope.analysis.estimates.noise_floor import noise_floor
from lorascope.analysis.estimates.ranks import Comparison, compare
from lorascope.analysis.findings import Findings
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.analysis.verdict.decide import decide_verdict, still_falling
from lorascope.analysis.verdict.limits import recommend_within
from lorascope.analysis.verdict.recommend import no_advice, recommend
from lorascope.analysis.verdict.schema import RecommendationSection, VerdictSection
from lorascope.analysis.verdict.sensitivity import with_changes
from lorascope.message import Message
from lorascope.records import NOT_COMPARED, UNSUCCESSFUL
from lorascope.spec.limits import limits_of


def assess(findings: Findings, ranks: Sequence[RankSection]) -> tuple[VerdictSection, RecommendationSection]:
    """Decide the verdict, and recommend a rank for each priority, within the study's limits if it has any."""
    verdict, recommendation = _assess(findings, ranks)
    limits, comparison = limits_of(findings.data.spec), findings.comparison
    if not limits or comparison is None or not comparison.excess:
        return verdict, recommendation

    def advise(allowed: Sequence[int]) -> RecommendationSection:
        choices = {rank: findings.choices[rank] for rank in allowed}
        among = replace(findings, choices=choices, comparison=compare(choices, findings.trials))
        return _assess(among, ranks)[1]

    comparable = {part.rank: part for part in ranks if part.rank in comparison.excess}
    return verdict, recommend_within(limits, comparable, recommendation, advise)


def _assess(findings: Findings, ranks: Sequence[RankSection]) -> tuple[VerdictSection, RecommendationSection]:
    comparison, resolved = findings.comparison, findings.data.resolved
    if comparison is None or comparison.step is None:
        why = _why_not_compared(findings.trials, comparison)
        return VerdictSection(kind="nothing_to_compare", text=(why,)), no_advice(why)
    tolerance = findings.data.spec.tolerance
    best = (findings.data.evaluations[trial.trial_id] for trial in findings.choices[comparison.best].trials)
    falling = any(still_falling(records, tolerance) for records in best)
    rows = resolved.eval_examples if resolved else 0
    verdict = decide_verdict(comparison, tolerance, falling=falling, rows=rows)
    advice = recommend(comparison, {part.rank: part for part in ranks}, verdict, tolerance)
    text, noise = verdict.text, noise_floor(findings.choices, comparison)
    if noise is not None:
        text = (*text, Message("verdict.noise_floor", typical=noise.typical, pairs=noise.pairs))
    if resolved is not None and comparison.step < resolved.total_steps:
        text = (Message("verdict.so_far", step=comparison.step, total=resolved.total_steps, verdict=text),)
    verdict = verdict.model_copy(update={"text": text, "noise_floor": noise})
    return verdict, with_changes(advice, comparison, tolerance)


def _why_not_compared(trials: Sequence[TrialSection], comparison: Comparison | None) -> Message:
    if trials and all(trial.outcome in UNSUCCESSFUL for trial in trials):
        return Message("verdict.all_ended_early")
    if comparison is not None and not comparison.loss:
        return Message("verdict.one_row")
    if comparison is not None and not comparison.seeds:
        return Message("verdict.no_common_seed")
    ended = sum(trial.outcome == "finished" for trial in trials)
    if trials and ended == sum(trial.outcome not in NOT_COMPARED for trial in trials):
        return Message("verdict.different_steps")
    return Message("verdict.not_finished", ended=ended, total=len(trials))
