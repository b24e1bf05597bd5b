"""Token budget of a study's search for learning rates, compared with training the whole grid."""

from collections.abc import Sequence
from statistics import fmean

from lorascope.analysis.settings_schema import BudgetSection
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import TrialSection
from lorascope.search.steps import evaluation_steps


def find_budget(data: StudyData, trials: Sequence[TrialSection]) -> BudgetSection | None:
    """Count tokens; None before a trial has finished, without held-out tokens counted, and where time ended trials."""
    resolved = data.resolved
    if any(message.code == "trial.no_time" for trial in trials for message in trial.message):
        return None
    finished = [trial.trial_id for trial in trials if trial.outcome == "finished"]
    if resolved is None or resolved.eval_tokens is None or not finished:
        return None
    trained = {trial.trial_id: int(data.steps[trial.trial_id].tokens.sum()) for trial in trials}
    evaluations = sum(record.step > 0 for trial in trials for record in data.evaluations[trial.trial_id])
    tokens = sum(trained.values()) + (1 + evaluations) * resolved.eval_tokens
    n_trials = len(data.seeds) * sum(map(len, data.settings.values()))
    whole_grid = data.spec.model_copy(update={"early_exit": False})
    n_evaluations = len(evaluation_steps(whole_grid, resolved.total_steps)) - 1
    whole = fmean(trained[name] for name in finished) + n_evaluations * resolved.eval_tokens
    exhaustive = n_trials * whole + resolved.eval_tokens
    return BudgetSection(
        tokens=tokens,
        exhaustive_tokens=round(exhaustive),
        share=tokens / exhaustive,
        stopped_trials=sum(trial.outcome == "stopped" for trial in trials),
    )
