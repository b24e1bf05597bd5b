"""Table of trials, and the names of their outcomes."""

from dataclasses import replace

from lorascope.analysis.summary import StudySummary, TrialSection
from lorascope.text.language import tr
from lorascope.text.say import say
from lorascope.text.tables.table import Table, loss_cell, make_table


def trial_table(summary: StudySummary) -> Table:
    """Show every trial and how it ended; why one was stopped early is a hint."""
    table = make_table(
        summary.trials,
        [trial.rank for trial in summary.trials],
        (tr("trial"), lambda trial: trial.trial_id),
        (tr("rank"), lambda trial: str(trial.rank)),
        (tr("alpha"), lambda trial: f"{trial.lora_alpha:g}"),
        (tr("learning rate"), lambda trial: f"{trial.learning_rate:g}"),
        (tr("seed"), lambda trial: str(trial.seed)),
        (tr("outcome"), _outcome),
        (tr("steps"), lambda trial: str(trial.steps)),
        (tr("training loss"), lambda trial: loss_cell(trial.train_loss)),
        (tr("held-out loss"), lambda trial: loss_cell(trial.eval_loss)),
    )
    hints = tuple(say(trial.message) if trial.outcome == "stopped" else "" for trial in summary.trials)
    return replace(table, style="trials", hints=hints)


def _outcome(trial: TrialSection) -> str:
    never_began = trial.outcome == "stopped" and not trial.steps  # the time budget ended before
    name = outcome_names()["not_started" if never_began else trial.outcome]
    return f"{name}: {say(trial.message)}" if trial.message and trial.outcome != "stopped" else name


def outcome_names() -> dict[str, str]:
    """Return the names of outcomes, and of trials that have none yet."""
    return {
        "not_started": tr("not started"),
        "running": tr("not finished"),
        "finished": tr("finished"),
        "stopped": tr("stopped early"),
        "diverged": tr("diverged"),
        "oom": tr("out of memory"),
        "failed": tr("failed"),
    }
