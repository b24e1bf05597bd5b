"""Cautions: reasons to read the numbers with care. Each check is a function that returns its caution or None."""

from lorascope.analysis.cost.cautions import memory_not_returned, unsteady_steps
from lorascope.analysis.dropped_rows import dropped_rows
from lorascope.analysis.estimates.paired import LEVEL
from lorascope.analysis.findings import Findings
from lorascope.analysis.summary import TrialSection
from lorascope.analysis.verdict.adapter_files import adapter_differs
from lorascope.analysis.verdict.claims import shown_above
from lorascope.analysis.verdict.power import below_capacity, environment_changed, seeds_added, underpowered
from lorascope.analysis.verdict.schema import CautionKind, CautionSection
from lorascope.message import Message
from lorascope.records import UNSUCCESSFUL
from lorascope.search.trials import planned_settings
from lorascope.spec.schema import StudySpec

FEW_ROWS = 100
"""Below this many held-out rows a 95% interval depends on single rows and may be too narrow."""
FEW_STEPS = 50
"""Below this many steps the optimizer's averages (0.999 over squares) hardly begin to settle."""


def find_cautions(findings: Findings) -> tuple[CautionSection, ...]:
    """Run every check, the weightiest first."""
    checks = (
        adapter_differs,
        _dropped_rows,
        _unfinished,
        _ended_early,
        _no_end_token,
        _cut_rows,
        _no_improvement,
        _eval_loss_rising,
        _one_learning_rate,
        _learning_rate_at_edge,
        _one_seed,
        _few_eval_examples,
        _short_run,
        _orders_disagree,
        underpowered,
        seeds_added,
        below_capacity,
        environment_changed,
        memory_not_returned,
        unsteady_steps,
    )
    return tuple(caution for check in checks if (caution := check(findings)) is not None)


def _dropped_rows(findings: Findings) -> CautionSection | None:
    dropped = dropped_rows(findings.data.resolved.data_notes if findings.data.resolved else ())
    return _caution("dropped_rows", *dropped) if dropped else None


def _unfinished(findings: Findings) -> CautionSection | None:
    waiting = tuple(trial.trial_id for trial in findings.trials if trial.outcome in ("not_started", "running"))
    if waiting:
        return _caution("unfinished", Message("caution.unfinished", trials=waiting))
    return None if findings.trials else _caution("unfinished", Message("caution.not_begun"))


def _ended_early(findings: Findings) -> CautionSection | None:
    ended = tuple(_ending(trial) for trial in findings.trials if trial.outcome in UNSUCCESSFUL)
    return _caution("ended_early", Message("caution.ended_early", trials=ended)) if ended else None


def _ending(trial: TrialSection) -> Message:
    if trial.outcome == "diverged":
        return Message("caution.diverged", trial=trial.trial_id, steps=trial.steps)
    if trial.outcome == "oom":
        return Message("caution.out_of_memory", trial=trial.trial_id, steps=trial.steps)
    return Message("caution.failed", trial=trial.trial_id, steps=trial.steps)


def _no_end_token(findings: Findings) -> CautionSection | None:
    return _of_most_rows(findings, "rows.no_end", "no_end_token", "caution.no_end_token")


def _cut_rows(findings: Findings) -> CautionSection | None:
    return _of_most_rows(findings, "rows.truncated", "cut_rows", "caution.cut_rows")


def _of_most_rows(findings: Findings, note: str, kind: CautionKind, code: str) -> CautionSection | None:
    """Caution where a note on the rows speaks of more than half of those that a split has left."""
    notes = findings.data.resolved.data_notes if findings.data.resolved else ()
    lost = {found.values["split"]: _number(found, "count") for found in notes if found.code == "rows.cut_before_target"}
    most = [
        found
        for found in notes
        if found.code == note
        and 2 * _number(found, "count") > _number(found, "rows") - lost.get(found.values["split"], 0)
    ]
    return _caution(kind, Message(code, notes=tuple(most))) if most else None


def _number(message: Message, name: str) -> int:
    value = message.values[name]
    assert isinstance(value, int)
    return value


def _no_improvement(findings: Findings) -> CautionSection | None:
    worse = tuple(
        trial.trial_id
        for trial in findings.trials
        if trial.eval_loss is not None
        and trial.base_eval_loss is not None
        and trial.eval_loss >= trial.base_eval_loss
        and trial.outcome != "stopped"
    )
    return _caution("no_improvement", Message("caution.no_improvement", trials=worse)) if worse else None


def _eval_loss_rising(findings: Findings) -> CautionSection | None:
    rising = []
    for trial in (trial for choice in findings.choices.values() for trial in choice.trials):
        records = findings.data.evaluations[trial.trial_id]
        lowest, last = min(loss for record in records if (loss := record.loss) is not None), trial.eval_loss
        if last is not None and last > lowest + findings.data.spec.tolerance:
            rising.append(Message("caution.lowest_and_last", trial=trial.trial_id, lowest=lowest, last=last))
    return _caution("eval_loss_rising", Message("caution.eval_loss_rising", trials=tuple(rising))) if rising else None


def _one_learning_rate(findings: Findings) -> CautionSection | None:
    spec = findings.data.spec
    rates = {rate for rank in spec.ranks for _, rate in planned_settings(spec, rank)}
    if len(rates) > 1 or len(spec.ranks) == 1:
        return None
    found = Message("caution.one_learning_rate", rate=min(rates), reason=_why_rates_matter(spec))
    return _caution("one_learning_rate", found)


def _why_rates_matter(spec: StudySpec) -> Message:
    if spec.alpha_rule == "proportional":
        return Message("caution.constant_scale", multiple=spec.alpha_over_rank)
    if spec.alpha_rule == "rslora":
        return Message("caution.rslora")
    if isinstance(spec.lora_alpha, dict):
        return Message("caution.own_alphas")
    if isinstance(spec.lora_alpha, tuple):
        return Message("caution.tuned_alpha")
    return Message("caution.fixed_alpha", alpha=spec.lora_alpha)


def _learning_rate_at_edge(findings: Findings) -> CautionSection | None:
    at_edge = []
    for rank, choice in findings.choices.items():
        tried, rate = findings.data.rates(rank, choice.lora_alpha), choice.learning_rate
        if len(tried) > 1 and rate in (tried[0], tried[-1]):
            at_edge.append(Message("caution.rate_of_rates", rank=rank, rate=rate, lowest=tried[0], highest=tried[-1]))
    if not at_edge:
        return None
    return _caution("learning_rate_at_edge", Message("caution.learning_rate_at_edge", ranks=tuple(at_edge)))


def _one_seed(findings: Findings) -> CautionSection | None:
    return None if len(findings.data.seeds) > 1 else _caution("one_seed", Message("caution.one_seed"))


def _few_eval_examples(findings: Findings) -> CautionSection | None:
    rows = findings.compared_rows
    if findings.data.resolved is None or rows >= FEW_ROWS:
        return None
    found = Message("caution.few_eval_examples", rows=rows, enough=FEW_ROWS)
    return _caution("few_eval_examples", found)


def _short_run(findings: Findings) -> CautionSection | None:
    resolved, epochs = findings.data.resolved, findings.data.epochs
    if resolved is None or epochs is None:
        return None
    if epochs >= 1 and resolved.total_steps >= FEW_STEPS:
        return None
    return _caution("short_run", Message("caution.short_run", steps=resolved.total_steps, epochs=epochs))


def _orders_disagree(findings: Findings) -> CautionSection | None:
    comparison = findings.comparison
    trained = {rank: loss for rank, choice in findings.choices.items() if (loss := choice.train_loss) is not None}
    if comparison is None or not comparison.excess or not trained:
        return None
    lowest = min(trained, key=lambda rank: trained[rank])
    if shown_above(comparison.differences, tuple(comparison.excess), 0.0)[lowest] > LEVEL:
        return None
    return _caution("orders_disagree", Message("caution.orders_disagree", rank=lowest, best=comparison.best))


def _caution(kind: CautionKind, *text: Message) -> CautionSection:
    return CautionSection(kind=kind, text=text)
