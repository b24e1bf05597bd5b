"""Reasons to read the numbers with care. Each check is one function that says its reason or nothing."""

from lorascope.analysis.cost.cautions import memory_not_returned, unsteady_steps
from lorascope.analysis.estimates.paired import LEVEL
from lorascope.analysis.findings import Findings
from lorascope.analysis.summary import CautionSection, TrialSection
from lorascope.analysis.verdict.claims import shown_above
from lorascope.analysis.verdict.power import below_capacity, environment_changed, underpowered
from lorascope.records import UNSUCCESSFUL
from lorascope.search.trials import planned_rates
from lorascope.spec.schema import StudySpec
from lorascope.text.language import tr
from lorascope.text.numbers import nats

FEW_ROWS = 100
"""Below this many held-out rows a 95% interval depends on single rows and may be too narrow."""
FEW_STEPS = 50
"""Below this many steps the optimizer's averages (0.999 over squares) hardly begin to settle."""


def find_cautions(findings: Findings) -> tuple[CautionSection, ...]:
    """Run every check, the weightiest first."""
    checks = (
        _unfinished,
        _ended_early,
        _no_improvement,
        _eval_loss_rising,
        _one_learning_rate,
        _learning_rate_at_edge,
        _one_seed,
        _few_eval_examples,
        _short_run,
        _orders_disagree,
        underpowered,
        below_capacity,
        environment_changed,
        memory_not_returned,
        unsteady_steps,
    )
    return tuple(caution for check in checks if (caution := check(findings)) is not None)


def _unfinished(findings: Findings) -> CautionSection | None:
    waiting = [trial.trial_id for trial in findings.trials if trial.outcome in ("not_started", "running")]
    if not waiting and findings.trials:
        return None
    if not waiting:
        return CautionSection(kind="unfinished", text=tr("The study has not begun."))
    text = tr(
        "The study is not finished: {trials} did not end. Run the same command again to continue.",
        trials=", ".join(waiting),
    )
    return CautionSection(kind="unfinished", text=text)


def _ended_early(findings: Findings) -> CautionSection | None:
    ended = [_ending(trial) for trial in findings.trials if trial.outcome in UNSUCCESSFUL]
    if not ended:
        return None
    text = tr("Trials that ended early are left out of the comparison: {trials}.", trials="; ".join(ended))
    return CautionSection(kind="ended_early", text=text)


def _ending(trial: TrialSection) -> str:
    if trial.outcome == "diverged":
        return tr("{trial} diverged after {steps} steps", trial=trial.trial_id, steps=trial.steps)
    if trial.outcome == "oom":
        return tr("{trial} ran out of memory after {steps} steps", trial=trial.trial_id, steps=trial.steps)
    return tr("{trial} failed after {steps} steps", trial=trial.trial_id, steps=trial.steps)


def _no_improvement(findings: Findings) -> CautionSection | None:
    worse = [
        trial.trial_id
        for trial in findings.trials
        if trial.eval_loss is not None
        and trial.base_eval_loss is not None
        and trial.eval_loss >= trial.base_eval_loss
        and trial.outcome != "stopped"
    ]
    if not worse:
        return None
    text = tr("Training did not lower the held-out loss of the base model: {trials}.", trials=", ".join(worse))
    return CautionSection(kind="no_improvement", text=text)


def _eval_loss_rising(findings: Findings) -> CautionSection | None:
    tolerance = findings.data.spec.tolerance
    rising = []
    for trial in (trial for choice in findings.choices.values() for trial in choice.trials):
        records = findings.data.evaluations[trial.trial_id]
        losses = [loss for record in records if (loss := record.loss) is not None]
        if trial.eval_loss is not None and trial.eval_loss > min(losses) + tolerance:
            lowest, last = nats(min(losses)), nats(trial.eval_loss)
            rising.append(tr("{trial} (lowest {lowest}, last {last})", trial=trial.trial_id, lowest=lowest, last=last))
    if not rising:
        return None
    text = tr(
        "The held-out loss rose again before the end, as in overfitting: {trials} nats a token.",
        trials=", ".join(rising),
    )
    return CautionSection(kind="eval_loss_rising", text=text)


def _one_learning_rate(findings: Findings) -> CautionSection | None:
    spec = findings.data.spec
    rates = {rate for rank in spec.ranks for rate in planned_rates(spec, rank)}
    if len(rates) > 1 or len(spec.ranks) == 1:
        return None
    text = tr(
        "All ranks were trained at one learning rate, {rate:g}; {reason}. A difference between ranks may be one of "
        "learning rates.",
        rate=min(rates),
        reason=_why_rates_matter(spec),
    )
    return CautionSection(kind="one_learning_rate", text=text)


def _why_rates_matter(spec: StudySpec) -> str:
    if spec.alpha_rule == "proportional":
        return tr(
            "at a constant scale (alpha = {multiple:g} r) a larger rank takes larger steps",
            multiple=spec.alpha_over_rank,
        )
    if spec.alpha_rule == "rslora":
        return tr("the best learning rate may still depend on the rank")
    if isinstance(spec.lora_alpha, tuple):
        return tr("each rank has an alpha and so a scale of its own")
    return tr("at a fixed alpha of {alpha:g} the scale alpha / r is smaller for a larger rank", alpha=spec.lora_alpha)


def _learning_rate_at_edge(findings: Findings) -> CautionSection | None:
    at_edge = []
    for rank, choice in findings.choices.items():
        tried = findings.data.rates[rank]
        if len(tried) > 1 and choice.learning_rate in (tried[0], tried[-1]):
            at_edge.append(
                tr(
                    "rank {rank} ({rate:g} of {lowest:g} to {highest:g})",
                    rank=rank,
                    rate=choice.learning_rate,
                    lowest=tried[0],
                    highest=tried[-1],
                )
            )
    if not at_edge:
        return None
    text = tr(
        "The best learning rate lies at the edge of those tried for {ranks}; a better one may lie outside.",
        ranks=", ".join(at_edge),
    )
    return CautionSection(kind="learning_rate_at_edge", text=text)


def _one_seed(findings: Findings) -> CautionSection | None:
    if len(findings.data.spec.seeds) > 1:
        return None
    text = tr(
        "One seed was run: the intervals cover the choice of held-out rows only. A second seed would show whether a "
        "difference between ranks is more than this seed's; three or more make its interval narrow."
    )
    return CautionSection(kind="one_seed", text=text)


def _few_eval_examples(findings: Findings) -> CautionSection | None:
    resolved = findings.data.resolved
    if resolved is None or resolved.eval_examples >= FEW_ROWS:
        return None
    text = tr(
        "Only {rows} rows were held out: the intervals are rough (better {enough} or more).",
        rows=resolved.eval_examples,
        enough=FEW_ROWS,
    )
    return CautionSection(kind="few_eval_examples", text=text)


def _short_run(findings: Findings) -> CautionSection | None:
    resolved, steps_per_epoch = findings.data.resolved, findings.data.steps_per_epoch
    if resolved is None or steps_per_epoch is None:
        return None
    epochs = resolved.total_steps / steps_per_epoch
    if epochs >= 1 and resolved.total_steps >= FEW_STEPS:
        return None
    text = tr(
        "The run is short: {steps} steps, {epochs:.2f} passes over the training rows. What a larger rank could still "
        "learn may not show.",
        steps=resolved.total_steps,
        epochs=epochs,
    )
    return CautionSection(kind="short_run", text=text)


def _orders_disagree(findings: Findings) -> CautionSection | None:
    comparison = findings.comparison
    trained = {rank: loss for rank, choice in findings.choices.items() if (loss := choice.train_loss) is not None}
    if comparison is None or not comparison.excess or not trained:
        return None
    lowest = min(trained, key=lambda rank: trained[rank])
    if shown_above(comparison.differences, tuple(comparison.excess), 0.0)[lowest] > LEVEL:
        return None
    text = tr(
        "Rank {rank} has the lowest training loss, but on held-out rows it is measurably worse than rank {best}.",
        rank=lowest,
        best=comparison.best,
    )
    return CautionSection(kind="orders_disagree", text=text)
