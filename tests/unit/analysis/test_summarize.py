"""A made-up study folder, finished or not, to its summary."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import stdev
from typing import Any

import jsonschema
import pytest

import summary_reference
from lorascope.analysis import summarize
from lorascope.analysis.summary import StudySummary
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.records import EvalRecord, OutcomeState, ResolvedStudy, TrialOutcome
from lorascope.spec.fields.lora import AlphaRule
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from lorascope.text.say import say
from lorascope.text.summary_json import summary_json
from support.messages import verbatim

MakeStudy = Callable[..., Path]


def kinds(summary: StudySummary) -> set[str]:
    return {caution.kind for caution in summary.cautions}


def ended(trial_id: str, state: OutcomeState, steps: int) -> dict[str, TrialOutcome]:
    return {trial_id: TrialOutcome(trial_id=trial_id, state=state, steps=steps, message=verbatim("a reason"))}


def test_summary_names_the_smallest_adequate_rank(make_study: MakeStudy) -> None:
    summary = summarize(make_study())
    assert summary.study.complete
    assert summary.verdict.kind == "adequate"
    assert summary.recommendation.loss.rank == summary.recommendation.use.rank == 128
    by_rank = {part.rank: part for part in summary.ranks}
    assert list(by_rank) == [8, 128, 256]
    assert by_rank[128].excess_loss == 0
    excess = by_rank[8].excess_loss
    assert excess is not None
    assert excess == pytest.approx(0.1, abs=0.01)
    assert by_rank[8].eval_loss_ci95 is not None
    assert by_rank[8].excess_loss_ci95 is not None
    paired_width = by_rank[8].excess_loss_ci95[1] - by_rank[8].excess_loss_ci95[0]
    assert paired_width < 0.2 * (by_rank[8].eval_loss_ci95[1] - by_rank[8].eval_loss_ci95[0])


def test_costs_come_from_solo_runs_without_warm_up(make_study: MakeStudy) -> None:
    part = summarize(make_study()).ranks[1]
    assert part.step_seconds == pytest.approx(0.528)
    assert part.runtime_seconds == pytest.approx(80 * 0.528)
    assert part.tokens_per_second == pytest.approx((260 + 270 + 240) / (3 * 0.528))
    assert part.peak_memory_bytes == 1_128_000_000
    assert part.training_state_bytes == 128 * 800_000
    assert part.memory is not None
    assert part.memory.mean == pytest.approx(1064.0)
    assert part.memory.std == pytest.approx(math.sqrt(2 / 3) * 64)
    assert (part.memory.min, part.memory.max) == (1000.0, 1128.0)
    assert part.gpu is None


def test_costs_are_null_without_solo_runs(make_study: MakeStudy) -> None:
    part = summarize(make_study(costs=False)).ranks[0]
    assert (part.step_seconds, part.runtime_seconds, part.peak_memory_bytes, part.memory) == (None,) * 4
    assert part.eval_loss is not None


def test_one_seed_is_named_in_verdict_and_cautions(make_study: MakeStudy) -> None:
    one = summarize(make_study())
    assert one.verdict.text[0].code == "verdict.of_one_seed"
    assert "one_seed" in kinds(one)


def test_seeds_are_averaged(make_study: MakeStudy) -> None:
    summary = summarize(make_study(spec=StudySpec(ranks=(8, 128), seeds=(0, 1)), floors={8: 1.3, 128: 1.2}))
    assert summary.verdict.text[0].code == "verdict.of_seeds"
    assert "one_seed" not in kinds(summary)
    part = summary.ranks[0]
    assert part.seeds == 2
    losses = [trial.eval_loss for trial in summary.trials if trial.rank == 8]
    assert part.eval_loss == pytest.approx(sum(losses) / 2, rel=1e-12)


def test_noise_floor_is_the_difference_between_seeds(make_study: MakeStudy) -> None:
    summary = summarize(make_study(spec=StudySpec(ranks=(8, 128), seeds=(0, 1, 2)), floors={8: 1.3, 128: 1.2}))
    noise = summary.verdict.noise_floor
    assert noise is not None
    losses = {rank: [trial.eval_loss for trial in summary.trials if trial.rank == rank] for rank in (8, 128)}
    apart = [abs(a - b) for of_rank in losses.values() for a, b in combinations(of_rank, 2)]
    assert noise.pairs == len(apart) == 6
    assert noise.typical == pytest.approx(math.sqrt(sum(gap**2 for gap in apart) / 6), rel=1e-9)
    assert noise.largest == pytest.approx(max(apart), rel=1e-9)
    assert noise.difference_sd == pytest.approx(stdev(a - b for a, b in zip(losses[8], losses[128], strict=True)))
    assert summary.verdict.text[-1] == Message("verdict.noise_floor", typical=noise.typical, pairs=6)
    assert (summary.verdict.seeds, summary.verdict.rank_matters) == (3, True)


def test_noise_floor_is_none_with_one_seed(make_study: MakeStudy) -> None:
    verdict = summarize(make_study()).verdict
    assert (verdict.seeds, verdict.rank_matters, verdict.noise_floor) == (1, None, None)
    assert [part.rank for part in verdict.claims] == [8, 128, 256]


def test_differences_use_seeds_common_to_all_ranks(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), seeds=(0, 1, 2))
    lost = ended("r8-s1", "diverged", 40)
    summary = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done={"r8-s1": 40}, outcomes=lost))
    losses = {(trial.rank, trial.seed): trial.eval_loss for trial in summary.trials}
    gaps = [losses[8, seed] - losses[128, seed] for seed in (0, 2)]
    assert summary.verdict.seeds == 2
    assert [part.seeds for part in summary.ranks] == [2, 3]
    assert summary.ranks[0].excess_loss == pytest.approx(sum(gaps) / 2, rel=1e-9)
    assert summary.ranks[1].eval_loss == pytest.approx(sum(losses[128, seed] for seed in (0, 1, 2)) / 3, rel=1e-12)


def test_ranks_without_a_common_seed_are_not_compared(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), seeds=(0, 1))
    lost = ended("r8-s1", "diverged", 40) | ended("r128", "diverged", 40)
    done = {"r8-s1": 40, "r128": 40}
    summary = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done=done, outcomes=lost))
    assert summary.verdict.kind == "nothing_to_compare"
    assert summary.verdict.text == (Message("verdict.no_common_seed"),)
    assert all(part.excess_loss is None and part.eval_loss_ci95 is not None for part in summary.ranks)


def test_best_learning_rate_is_chosen_and_a_grid_edge_is_named(make_study: MakeStudy) -> None:
    inside = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4, 1e-3))
    summary = summarize(make_study(spec=inside, floors={8: 1.3, 128: 1.2}))
    assert [part.best_learning_rate for part in summary.ranks] == [3e-4, 3e-4]
    assert not kinds(summary) & {"learning_rate_at_edge", "one_learning_rate"}


def test_best_learning_rate_at_the_edge_is_a_caution(make_study: MakeStudy) -> None:
    edge = StudySpec(ranks=(8, 128), learning_rates=(3e-4, 1e-3))
    assert "learning_rate_at_edge" in kinds(summarize(make_study(spec=edge, floors={8: 1.3, 128: 1.2})))


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("proportional", Message("caution.constant_scale", multiple=4)),
        ("fixed", Message("caution.fixed_alpha", alpha=32)),
        ("rslora", Message("caution.rslora")),
    ],
)
def test_one_learning_rate_caution_follows_the_alpha_rule(
    make_study: MakeStudy, rule: AlphaRule, reason: Message
) -> None:
    summary = summarize(make_study(spec=StudySpec(ranks=(8, 128), alpha_rule=rule), floors={8: 1.3, 128: 1.2}))
    (text,) = (caution.text for caution in summary.cautions if caution.kind == "one_learning_rate")
    assert text == (Message("caution.one_learning_rate", rate=3e-4, reason=reason),)


@pytest.mark.parametrize("state", ["diverged", "oom", "failed"])
def test_trial_that_ended_early_is_not_compared(make_study: MakeStudy, state: OutcomeState) -> None:
    summary = summarize(make_study(done={"r128": 45}, outcomes=ended("r128", state, 45)))
    trial = summary.trials[1]
    assert (trial.outcome, trial.steps, trial.eval_step, trial.message) == (state, 45, 40, (verbatim("a reason"),))
    assert trial.train_loss is not None
    assert trial.eval_loss is not None
    assert summary.ranks[1].eval_loss is None
    assert summary.ranks[1].step_seconds is not None
    assert summary.recommendation.loss.rank == 256
    assert "ended_early" in kinds(summary)
    assert summary.study.complete


def test_best_learning_rate_prefers_rates_with_all_seeds(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1))
    lost = ended("r8-lr0.0003-s1", "diverged", 40)
    summary = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done={"r8-lr0.0003-s1": 40}, outcomes=lost))
    assert [part.best_learning_rate for part in summary.ranks] == [1e-4, 3e-4]


def test_interrupted_study_is_summarized_at_its_last_step(make_study: MakeStudy) -> None:
    summary = summarize(make_study(done={"r8": 45, "r128": 45, "r256": 45}))
    assert not summary.study.complete
    (text,) = summary.verdict.text
    assert (text.code, text.values["step"], text.values["total"]) == ("verdict.so_far", 40, 80)
    assert "unfinished" in kinds(summary)
    assert {trial.outcome for trial in summary.trials} == {"running"}


def test_ranks_at_different_steps_are_not_compared(make_study: MakeStudy) -> None:
    summary = summarize(make_study(done={"r256": 45}))
    assert summary.verdict.kind == "nothing_to_compare"
    assert summary.verdict.text == (Message("verdict.not_finished", ended=2, total=3),)
    assert summary.recommendation.loss.rank is None
    assert all(part.excess_loss is None and part.eval_loss is not None for part in summary.ranks)


def test_study_before_its_first_step_has_nulls(make_study: MakeStudy) -> None:
    summary = summarize(make_study(done={"r8": 0, "r128": 0, "r256": 0}))
    assert all(part.eval_loss is None and part.train_loss is None for part in summary.ranks)
    assert all(trial.base_eval_loss is not None for trial in summary.trials)
    assert summary.verdict.kind == "nothing_to_compare"


def test_empty_store_has_a_summary(tmp_path: Path) -> None:
    StudyStore.create(tmp_path / "study.db").close()
    (tmp_path / "study.yaml").write_text("ranks: [4, 8]\n", encoding="utf-8")
    summary = summarize(tmp_path)
    assert summary.study.train_examples is None
    assert [part.rank for part in summary.ranks] == [4, 8]
    assert kinds(summary) >= {"unfinished"}
    assert summary.environment is None
    jsonschema.validate(json.loads(summary_json(summary)), summary_reference.schema())


def test_study_without_a_finished_trial_has_a_summary(make_study: MakeStudy) -> None:
    outcomes = {name: outcome for name in ("r8", "r128", "r256") for name, outcome in ended(name, "failed", 0).items()}
    summary = summarize(make_study(done={"r8": 0, "r128": 0, "r256": 0}, outcomes=outcomes))
    assert summary.verdict.text == (Message("verdict.all_ended_early"),)


def test_nonfinite_values_are_null_in_json(make_study: MakeStudy) -> None:
    folder = make_study()
    nan = EvalRecord(
        trial_id="r8", step=80, example_nats=(math.nan,) * 200, example_target_tokens=(20,) * 200, seconds=1
    )
    with StudyStore.create(folder / "study.db") as store:
        store.put(nan)
        store.put(TrialOutcome(trial_id="r8", state="diverged", steps=80, message=verbatim("loss is NaN")))
    summary = summarize(folder)
    assert summary.trials[0].eval_step == 60
    text = summary_json(summary)
    jsonschema.validate(json.loads(text, parse_constant=pytest.fail), summary_reference.schema())


def test_overfitting_and_no_improvement_are_cautions(make_study: MakeStudy) -> None:
    folder = make_study()
    rows: dict[str, Any] = {"example_target_tokens": (20,) * 200, "seconds": 1.0}
    with StudyStore.create(folder / "study.db") as store:
        store.put_all([EvalRecord(trial_id="r8", step=80, example_nats=(60.0,) * 200, **rows)])
    assert kinds(summarize(folder)) >= {"eval_loss_rising", "no_improvement"}


def test_memorization_is_a_caution(make_study: MakeStudy) -> None:
    folder = make_study()
    with StudyStore.create(folder / "study.db") as store:
        last = store.read(EvalRecord, trial_id="r8")[-1]
        low = tuple(nats - 10 for nats in last.example_nats)
        store.put_all(
            [EvalRecord(trial_id="r8", step=80, example_nats=low, example_target_tokens=(20,) * 200, seconds=1.0)]
        )
    summary = summarize(folder)
    assert summary.recommendation.loss.rank == 8
    assert "orders_disagree" in kinds(summary)


def test_little_data_is_a_caution(make_study: MakeStudy) -> None:
    assert kinds(summarize(make_study(steps=20, n_eval=12))) >= {"few_eval_examples", "short_run"}


@pytest.mark.parametrize(
    ("note", "caution"),
    [
        (partial(Message, "rows.truncated", split="train", tokens=24), "cut_rows"),
        (partial(Message, "rows.no_end", split="train", end="</s>"), "no_end_token"),
    ],
)
def test_most_rows_cut_or_without_an_end_is_a_caution(
    make_study: MakeStudy, note: Callable[..., Message], caution: str
) -> None:
    folder = make_study()
    lost = Message("rows.cut_before_target", split="train", rows=60, tokens=24, count=20)
    for count, expected in ((20, False), (21, True)):
        with StudyStore.create(folder / "study.db") as store:
            resolved = store.read_one(ResolvedStudy)
            store.put(replace(resolved, data_notes=(note(rows=60, count=count), lost)))
        summary = summarize(folder)
        assert (caution in kinds(summary)) == expected
    (found,) = (part for part in summary.cautions if part.kind == caution)
    assert "21" in say(found.text)


def test_one_held_out_row_has_no_interval(make_study: MakeStudy) -> None:
    summary = summarize(make_study(n_eval=1))
    assert all(part.eval_loss is not None and part.eval_loss_ci95 is None for part in summary.ranks)
    assert summary.verdict.text == (Message("verdict.one_row"),)


def test_summary_json_is_valid_and_round_trips(make_study: MakeStudy) -> None:
    summary = summarize(make_study())
    schema = summary_reference.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(summary_json(summary)), schema)
    assert StudySummary.model_validate(summary.model_dump()) == summary


def test_summarize_refuses_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study store"):
        summarize(tmp_path)


def test_stopped_trial_is_neither_compared_nor_failed(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4, 1e-3))
    names = [f"r{rank}-lr0.001" for rank in (8, 128)]
    stops = {name: TrialOutcome(trial_id=name, state="stopped", steps=40, message=verbatim("behind")) for name in names}
    summary = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done=dict.fromkeys(names, 40), outcomes=stops))
    assert summary.study.complete
    assert [part.best_learning_rate for part in summary.ranks] == [3e-4, 3e-4]
    assert all(part.excess_loss is not None for part in summary.ranks)
    assert not kinds(summary) & {"ended_early", "unfinished", "learning_rate_at_edge"}


def test_budget_counts_training_and_held_out_tokens(make_study: MakeStudy) -> None:
    """80 steps of 260 tokens, 200 held-out rows of 26, evaluations after 20, 40, 60 and 80 steps."""
    spec = StudySpec(ranks=(8,), learning_rates=(1e-4, 3e-4, 1e-3), seeds=(0, 1), early_exit=False)
    stopped = TrialOutcome(trial_id="r8-lr0.001-s1", state="stopped", steps=20, message=verbatim("behind"))
    budget = summarize(
        make_study(spec=spec, floors={8: 1.3}, done={"r8-lr0.001-s1": 20}, outcomes={"r8-lr0.001-s1": stopped})
    ).study.budget
    assert budget is not None
    evaluation = 200 * 26
    assert budget.exhaustive_tokens == 6 * (80 * 260 + 4 * evaluation) + evaluation
    assert budget.tokens == 5 * (80 * 260 + 4 * evaluation) + 20 * 260 + evaluation + evaluation
    assert budget.share == budget.tokens / budget.exhaustive_tokens
    assert budget.stopped_trials == 1


def test_trials_that_a_time_budget_ended_are_no_saving(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8,), learning_rates=(1e-4, 3e-4, 1e-3))
    ended = TrialOutcome(trial_id="r8-lr0.001", state="stopped", steps=20, message=Message("trial.no_time"))
    found = make_study(spec=spec, floors={8: 1.3}, done={"r8-lr0.001": 20}, outcomes={"r8-lr0.001": ended})
    assert summarize(found).study.budget is None


def test_budget_is_none_without_a_finished_trial(make_study: MakeStudy) -> None:
    assert summarize(make_study(done={"r8": 45, "r128": 45, "r256": 45})).study.budget is None


def test_automatic_rates_are_not_one_learning_rate(make_study: MakeStudy) -> None:
    summary = summarize(make_study(spec=StudySpec(ranks=(8, 128), learning_rates="auto"), floors={8: 1.3, 128: 1.2}))
    assert "one_learning_rate" not in kinds(summary)
    assert summary.ranks[0].learning_rates == (3.3e-4, 1e-3, 3e-3)
