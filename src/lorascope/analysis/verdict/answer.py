"""The answer: a study's status, one sentence, and what to do for now. Reports, pages and the terminal begin with it."""

from collections.abc import Mapping

from lorascope.analysis.adapters.schema import TruncationSection
from lorascope.analysis.estimates.ranks import Comparison
from lorascope.analysis.findings import Findings
from lorascope.analysis.verdict.claims import Claims
from lorascope.analysis.verdict.decide import excesses, limited_by_seeds, open_ranks
from lorascope.analysis.verdict.schema import (
    AdviceSection,
    AnswerSection,
    RecommendationSection,
    Status,
    VerdictSection,
)
from lorascope.analysis.verdict.shown import claims_of
from lorascope.message import Message, Sentences
from lorascope.spec.limits import limits_of

_NEEDS = {"loss": "answer.prefer_loss", "time": "answer.prefer_time", "memory": "answer.prefer_memory"}
"""By the preference of the study; the best value is the smallest rank that is enough."""


def find_answer(
    findings: Findings,
    verdict: VerdictSection,
    recommendation: RecommendationSection,
    truncation: TruncationSection | None,
) -> AnswerSection:
    """Sum up verdict and recommendation. One seed is never enough for a clear answer or a tie."""
    status, text = _sum_up(findings, verdict, recommendation)
    use = recommendation.use
    cut = truncated_rank(use.rank, truncation)
    now: Sentences = ()
    if status in ("clear", "tie", "undecided"):
        now = _for_now(status, use, cut)
    elif status == "too_early" and text.code != "answer.unfinished" and recommendation.loss.rank is not None:
        now = (Message("answer.lowest_so_far", rank=recommendation.loss.rank),)
    return AnswerSection(status=status, text=text, now=now, truncate_to=cut)


def truncated_rank(rank: int | None, truncation: TruncationSection | None) -> int | None:
    """Return the rank that an adapter of ``rank`` can be truncated to at the same loss; None where none is smaller."""
    if truncation is None or rank != truncation.rank or truncation.adequate_rank in (None, rank):
        return None
    return truncation.adequate_rank


def _sum_up(
    findings: Findings, verdict: VerdictSection, recommendation: RecommendationSection
) -> tuple[Status, Message]:
    comparison, use, tolerance = findings.comparison, recommendation.use, findings.data.spec.tolerance
    early = _too_early(findings, verdict)
    if early is not None:
        return "too_early", early
    if comparison is None or comparison.step is None or use.rank is None:
        return "no_answer", use.reason
    if verdict.kind == "nothing_to_compare":
        return "one_rank", Message("answer.one_rank", rank=comparison.best)
    tests = claims_of(comparison, tolerance)
    if verdict.seeds == 1 or verdict.kind == "too_short":
        return "undecided", _undecided(findings, comparison, verdict, tests)
    if verdict.kind == "no_measurable_difference":
        return "tie", Message("answer.tie", first=min(tests), last=max(tests), tolerance=tolerance, rank=use.rank)
    return "clear", _clear(findings, comparison, tests, use.rank)


def _too_early(findings: Findings, verdict: VerdictSection) -> Message | None:
    """Return the message of what a verdict lacks: runs, steps, held-out rows, or a loss that no longer falls."""
    trials, resolved = findings.trials, findings.data.resolved
    ended = sum(trial.outcome not in ("not_started", "running") for trial in trials)
    at = max((trial.steps for trial in trials), default=0)
    if resolved is None or not (at or ended):
        return Message("answer.not_begun")
    if ended < len(trials) or (findings.data.goes_on and not findings.data.looks):
        return Message("answer.unfinished", step=at, steps=resolved.total_steps, ended=ended, total=len(trials))
    reason = verdict.text[0]
    if reason.code == "verdict.still_falling":
        return Message("answer.still_falling", rank=reason.values["rank"])
    if reason.code == "verdict.few":
        steps, rows, least = (reason.values[name] for name in ("steps", "rows", "least"))
        if isinstance(steps, int) and isinstance(least, int) and steps < least:
            return Message("answer.few_steps", steps=steps, least=least)
        return Message("answer.few_rows", rows=rows, least=least)
    return None


def _undecided(
    findings: Findings, comparison: Comparison, verdict: VerdictSection, tests: Mapping[int, Claims]
) -> Message:
    """State which rank is shown to be enough or else leads, and from which others the data cannot separate it."""
    if verdict.seeds == 1:
        return _in_one_seed(comparison, verdict, tests)
    enough, by = _enough(tests), Message("answer.seeds", count=len(comparison.seeds))
    if findings.compared_rows and not limited_by_seeds(comparison):
        by = Message("answer.rows", count=findings.compared_rows)
    undecided = open_ranks(tests, excesses(comparison), findings.data.spec.tolerance)
    if enough:
        return Message("answer.safe", rank=min(enough), ranks=undecided, by=by)
    close = tuple(rank for rank, found in tests.items() if rank != comparison.best and not found.is_worse)
    if close:
        return Message("answer.leads", rank=comparison.best, ranks=close, by=by)
    tolerance = findings.data.spec.tolerance
    return Message("answer.open", rank=comparison.best, ranks=undecided, by=by, tolerance=tolerance)


def _in_one_seed(comparison: Comparison, verdict: VerdictSection, tests: Mapping[int, Claims]) -> Message:
    """State what one seed suggests; it proves nothing of another."""
    if verdict.kind == "adequate":
        return Message("answer.enough_in_one_seed", rank=min(_enough(tests)))
    if verdict.kind == "no_measurable_difference":
        return Message("answer.tie_in_one_seed", first=min(tests), last=max(tests))
    return Message("answer.leads_in_one_seed", rank=comparison.best)


def _clear(findings: Findings, comparison: Comparison, tests: Mapping[int, Claims], use: int) -> Message:
    spec, smallest = findings.data.spec, min(_enough(tests))
    if use != smallest:
        need = "answer.limits" if limits_of(spec) else _NEEDS[spec.prefer]
        return Message("answer.preferred", rank=use, need=Message(need), enough=smallest)
    if use != comparison.best:
        return Message("answer.enough", rank=use, excess=comparison.excess[use], tolerance=spec.tolerance)
    return Message("answer.smallest_is_best" if use == min(tests) else "answer.best", rank=use)


def _enough(tests: Mapping[int, Claims]) -> list[int]:
    return [rank for rank, found in tests.items() if found.is_adequate]


def _for_now(status: Status, use: AdviceSection, cut: int | None) -> Sentences:
    """Return what to do until more is known, and how to make the adapter smaller."""
    assert use.rank is not None
    undecided = status == "undecided"
    if cut is not None:
        share = cut / use.rank
        return (Message("answer.ship_for_now" if undecided else "answer.ship", rank=use.rank, cut=cut, share=share),)
    if not undecided:
        return ()
    if use.chance is None or use.evidence == "proven":
        return (Message("answer.for_now", rank=use.rank),)
    return (Message("answer.likely_for_now", rank=use.rank, chance=use.chance),)
