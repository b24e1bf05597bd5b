"""Verdict and recommendation of a study, from its records and the comparison of its ranks."""

from collections.abc import Sequence

from lorascope.analysis.cost.solo_runs import pace_spread, runs_by_rank
from lorascope.analysis.estimates.noise_floor import noise_floor
from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.findings import Findings
from lorascope.analysis.summary import RankSection, TrialSection
from lorascope.analysis.verdict.decide import decide_verdict, still_falling
from lorascope.analysis.verdict.limits import beyond_limits, none_within, with_limits
from lorascope.analysis.verdict.posterior import standings
from lorascope.analysis.verdict.power import find_limit, find_remedy
from lorascope.analysis.verdict.recommend import Grounds, no_advice, recommend
from lorascope.analysis.verdict.schema import RecommendationSection, VerdictSection
from lorascope.analysis.verdict.shown import claims_of
from lorascope.message import Message
from lorascope.records import NOT_COMPARED, UNSUCCESSFUL
from lorascope.spec.limits import limits_of, within

STEADY = 0.25
"""Times of ranks whose solo runs on one batch differ by more say nothing about which is faster."""


def assess(findings: Findings, ranks: Sequence[RankSection]) -> tuple[VerdictSection, RecommendationSection]:
    """Decide the verdict, and recommend a rank for each need, within the study's limits if it has any."""
    comparison = findings.comparison
    if comparison is None or comparison.step is None:
        why = _why_not_compared(findings.trials, comparison)
        return VerdictSection(kind="nothing_to_compare", text=(why,)), no_advice(why)
    verdict = _verdict(findings, comparison)
    return verdict, _recommend(findings, comparison, verdict, ranks)


def _verdict(findings: Findings, comparison: Comparison) -> VerdictSection:
    data, tolerance = findings.data, findings.data.spec.tolerance
    resolved, remedy = data.resolved, find_remedy(findings)
    best = (findings.data.evaluations[trial.trial_id] for trial in findings.choices[comparison.best].trials)
    falling = any(still_falling(records, tolerance) for records in best)
    verdict = decide_verdict(
        comparison,
        tolerance,
        falling=falling,
        rows=findings.compared_rows,
        looks=len(data.looks),
        limit=find_limit(data, remedy),
    )
    text, noise = verdict.text, noise_floor(findings.choices, comparison)
    if noise is not None:
        text = (*text, Message("verdict.noise_floor", typical=noise.typical, pairs=noise.pairs))
    if resolved is not None and (comparison.step or 0) < resolved.total_steps:
        text = (Message("verdict.so_far", step=comparison.step, total=resolved.total_steps, verdict=text),)
    return verdict.model_copy(update={"text": text, "remedy": remedy, "noise_floor": noise})


def _recommend(
    findings: Findings, comparison: Comparison, verdict: VerdictSection, ranks: Sequence[RankSection]
) -> RecommendationSection:
    spec, limits = findings.data.spec, limits_of(findings.data.spec)
    compared = {part.rank: part for part in ranks if part.rank in comparison.excess}
    allowed = {rank: part for rank, part in compared.items() if within(limits, part)}
    if not allowed:
        return no_advice(none_within(limits, list(compared.values())), [beyond_limits(limits, compared)])
    grounds = Grounds(
        comparison=comparison,
        ranks=allowed,
        tests=claims_of(comparison, spec.tolerance),
        standings=standings(comparison, spec.tolerance),
        verdict=verdict,
        tolerance=spec.tolerance,
        steady=all(pace_spread(runs) <= STEADY for runs in runs_by_rank(findings.data.solo_runs).values()),
    )
    advice = recommend(grounds, spec.prefer)
    return with_limits(advice, limits, compared) if limits else advice


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
