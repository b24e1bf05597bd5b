"""The readings of a made-up study, against numbers worked out from its records by another route."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.analysis import StudySummary, load_study, summarize, summarize_data
from lorascope.analysis.cost.pareto import mark_pareto
from lorascope.analysis.readings import find_knee
from lorascope.analysis.readings_schema import DoublingSection
from lorascope.analysis.summary import RankSection
from lorascope.message import Message
from lorascope.records import TrialOutcome, TrialRecord
from lorascope.spec.schema import StudySpec
from lorascope.text.tables.readings import alpha_table
from support.messages import codes, messages_in, values_of, verbatim

MakeStudy = Callable[..., Path]


@pytest.fixture(scope="module")
def summary(build_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    return summarize(build_study(tmp_path_factory.mktemp("readings") / "study"))


@pytest.fixture(scope="module")
def grid(build_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    """Rank 8 is better on held-out rows, rank 128 at the rate that is named first."""
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1), alpha_rule="proportional")
    return summarize(build_study(tmp_path_factory.mktemp("grid") / "study", spec=spec, floors={8: 1.2, 128: 1.3}))


def doubling(smaller: int, larger: int, gain: float, half: float = 0.001) -> DoublingSection:
    doublings = math.log2(larger / smaller)
    return DoublingSection(
        smaller=smaller, larger=larger, gain=gain, gain_ci95=(gain - half, gain + half),
        gain_per_doubling=gain / doublings, gain_per_million=None,
    )  # fmt: skip


def test_gains_are_differences_per_doubling_and_per_parameter(summary: StudySummary) -> None:
    losses = {part.rank: part.eval_loss for part in summary.ranks}
    first, second = summary.readings.doublings
    assert (first.smaller, first.larger, second.smaller, second.larger) == (8, 128, 128, 256)
    assert first.gain == pytest.approx(losses[8] - losses[128], abs=1e-12)
    assert first.gain_per_doubling == pytest.approx(first.gain / 4, rel=1e-12)
    assert first.gain_per_million == pytest.approx(first.gain / (120 * 0.05), rel=1e-12)
    assert second.gain == pytest.approx(losses[128] - losses[256], abs=1e-12)
    for step in (first, second):
        assert step.gain_ci95[0] < step.gain < step.gain_ci95[1]


def test_gain_interval_where_the_larger_rank_is_worse(summary: StudySummary) -> None:
    worse = summary.ranks[2]
    step = summary.readings.doublings[1]
    assert worse.excess_loss is not None
    assert worse.excess_loss_ci95 is not None
    assert step.gain == pytest.approx(-worse.excess_loss, abs=1e-12)
    assert step.gain_ci95 == pytest.approx((-worse.excess_loss_ci95[1], -worse.excess_loss_ci95[0]), abs=2e-4)


def test_gaps_are_differences_of_the_losses_shown(summary: StudySummary) -> None:
    base = summary.trials[0].base_eval_loss
    lowest = min(part.train_loss for part in summary.ranks)
    largest = summary.ranks[-1].eval_loss
    for part, reading in zip(summary.ranks, summary.readings.ranks, strict=True):
        assert reading.rank == part.rank
        assert reading.train_gap == part.train_loss - lowest
        assert reading.loss_gained == pytest.approx(base - part.eval_loss)
        assert reading.final_spread == pytest.approx(0.08, abs=0.04)
        if reading.excess_over_largest is not None:
            assert reading.excess_over_largest == pytest.approx(part.eval_loss - largest)
    assert summary.readings.ranks[-1].excess_over_largest is None


def test_sizes_follow_from_parameter_counts(summary: StudySummary) -> None:
    part, reading = summary.ranks[0], summary.readings.ranks[0]
    assert reading.trainable_share == 400_000 / 134_515_008
    assert reading.training_bytes == 4 * 134_515_008 + part.training_state_bytes
    assert summary.readings.full_training_bytes == 16 * 134_515_008
    balance = summary.readings.balance
    assert values_of(balance, "tradeoff.parameters") == {
        "rank": 128, "share": 6_400_000 / 134_515_008, "parameters": 134_515_008, "size": 25_600_000,
    }  # fmt: skip
    assert values_of(balance, "tradeoff.memory")["full"] == 16 * 134_515_008
    assert codes(balance)[-2:] == ["tradeoff.cost_against_largest", "tradeoff.full_not_run"]


def test_stable_step_uses_the_band_of_the_study(make_study: MakeStudy) -> None:
    found = []
    for zone in (0.02, 0.05, 0.3):
        spec = StudySpec(ranks=(8, 128), convergence_band=zone)
        readings = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2})).readings
        found.append(readings.ranks[1].stable_step or math.inf)
    assert found[0] > found[1] > found[2]


def test_stable_step_of_an_unfinished_trial_is_none(make_study: MakeStudy) -> None:
    readings = summarize(make_study(done={"r8": 60, "r128": 60, "r256": 60})).readings
    assert {reading.stable_step for reading in readings.ranks} == {None}
    assert all(reading.train_gap is not None for reading in readings.ranks)


@pytest.mark.parametrize(
    ("gains", "knee", "code", "values"),
    [
        ((0.1, 0.02, 0.001), 32, "knee.before", {"gain": 0.02}),
        ((0.001, -0.02, 0.0), 8, "knee.shown", {"knee": 8, "most": 0.001, "tolerance": 0.005}),
        ((0.001, 0.001, 0.02), None, "knee.none", {"larger": 64, "smaller": 32, "gain": 0.02}),
        ((0.1, 0.0045, 0.004), 16, "knee.estimated", {"knee": 16, "most": 0.0045, "tolerance": 0.005, "reach": 0.0055}),
    ],
)
def test_knee_is_where_doublings_gain_less_than_the_tolerance(
    gains: tuple[float, ...], knee: int | None, code: str, values: dict[str, float]
) -> None:
    ranks = (8, 16, 32, 64)
    steps = [doubling(small, large, gain) for small, large, gain in zip(ranks, ranks[1:], gains, strict=False)]
    found, text = find_knee(steps, 0.005)
    assert found == knee
    assert values_of(text, code) == pytest.approx(values)


def test_knee_spreads_a_gain_over_several_doublings() -> None:
    assert find_knee([doubling(8, 128, 0.016)], 0.005)[0] == 8
    assert find_knee([doubling(8, 128, 0.024)], 0.005)[0] is None
    assert find_knee([], 0.005) == (None, (Message("knee.nothing_to_compare"),))


def with_estimates(part: RankSection, rank: int, loss: float | None, seconds: float, memory: int) -> RankSection:
    update = {"rank": rank, "eval_loss": loss, "step_seconds": seconds, "peak_memory_bytes": memory}
    return part.model_copy(update=update)


def test_pareto_set_is_not_dominated(summary: StudySummary) -> None:
    part = summary.ranks[0].model_copy(update={"pareto": None})
    points = {8: (1.3, 0.4, 100), 16: (1.2, 0.5, 120), 32: (1.2, 0.5, 130), 64: (1.25, 0.6, 140), 128: (1.1, 0.9, 90)}
    ranks = [with_estimates(part, rank, *point) for rank, point in points.items()]
    ranks += [with_estimates(part, 256, None, 0.1, 1), with_estimates(part, 512, 1.1, 0.9, 90)]
    found = {part.rank: part.pareto for part in mark_pareto(ranks)}
    assert found == {8: True, 16: True, 32: False, 64: False, 128: True, 256: None, 512: True}


def test_baseline_uses_the_first_rate_and_the_training_loss(grid: StudySummary) -> None:
    naive = grid.readings.naive
    assert [order.learning_rate for order in naive.orders] == [1e-4, 3e-4]
    for order in naive.orders:
        trials = [trial for trial in grid.trials if trial.learning_rate == order.learning_rate]
        means = {rank: sum(t.train_loss for t in trials if t.rank == rank) / 2 for rank in (8, 128)}
        assert order.by_train_loss == tuple(sorted(means, key=lambda rank: means[rank]))
        assert order.by_eval_loss == (8, 128)
    assert naive.rank == naive.orders[0].by_train_loss[0]
    assert naive.at_best_rates == (8, 128)


def test_baseline_difference_is_reported(make_study: MakeStudy) -> None:
    agree = summarize(make_study())
    assert agree.readings.naive.rank == agree.recommendation.use.rank == 128
    assert agree.readings.naive.text[-1] == Message("naive.same_rank", rank=128)
    close = StudySpec(ranks=(8, 128, 256), tolerance=0.2)
    differ = summarize(make_study(spec=close, floors={8: 1.3, 128: 1.2, 256: 1.25}))
    assert (differ.readings.naive.rank, differ.recommendation.use.rank) == (128, 8)
    text = differ.readings.naive.text
    assert values_of(text, "naive.script")["rank"] == 128
    assert [message.values["rank"] for message in messages_in(text) if message.code == "naive.rank_loss"] == [
        128,
        256,
        8,
    ]
    assert text[-1] == Message("naive.other_rank", rank=8)


def test_rates_order_skips_a_rate_that_one_rank_did_not_finish(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4))
    lost = "r128-lr0.0001"
    outcome = TrialOutcome(trial_id=lost, state="diverged", steps=40, message=verbatim("a reason"))
    summary = summarize(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done={lost: 40}, outcomes={lost: outcome}))
    assert [order.learning_rate for order in summary.readings.naive.orders] == [3e-4]
    cells = {(cell.rank, cell.learning_rate): cell for cell in summary.readings.grid}
    assert cells[128, 1e-4].outcome == "diverged"
    assert cells[128, 1e-4].eval_loss == next(t.eval_loss for t in summary.trials if t.trial_id == lost)


def test_rates_order_needs_a_common_step(make_study: MakeStudy) -> None:
    unfinished = summarize(make_study(done={"r8": 40, "r128": 10, "r256": 40})).readings.naive
    assert (unfinished.orders, unfinished.rank) == ((), None)
    assert unfinished.text == (Message("naive.no_order"),)


def test_rates_order_of_a_stopped_rate_uses_the_last_common_step(make_study: MakeStudy) -> None:
    """Trials that stopped part of the way, as early exit or an interruption leaves them."""
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4))
    cut = {"r8-lr0.0001": 20, "r128-lr0.0001": 45}
    folder = make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done=cut)
    naive = summarize(folder).readings.naive
    assert [(order.learning_rate, order.step) for order in naive.orders] == [(3e-4, 80), (1e-4, 20)]
    assert values_of(naive.text, "naive.script")["rate"] == 3e-4
    both = cut | {"r8-lr0.0003": 60, "r128-lr0.0003": 40}
    shorter = cut_further(folder, both)
    assert [(order.learning_rate, order.step) for order in shorter.readings.naive.orders] == [(3e-4, 40), (1e-4, 20)]
    assert values_of(shorter.readings.naive.text, "naive.script_cut_short")["steps"] == 40


def cut_further(folder: Path, done: dict[str, int]) -> StudySummary:
    """The same records, cut further."""
    data = load_study(folder)
    cut = replace(
        data,
        steps={name: steps.until(done[name]) for name, steps in data.steps.items()},
        evaluations={n: tuple(r for r in records if r.step <= done[n]) for n, records in data.evaluations.items()},
    )
    return summarize_data(cut)


def test_readings_of_one_rank_have_no_order_and_no_knee(make_study: MakeStudy) -> None:
    readings = summarize(make_study(spec=StudySpec(ranks=(8,)), floors={8: 1.3})).readings
    assert readings.naive.text == (Message("naive.one_rank"),)
    assert (readings.doublings, readings.knee, readings.alpha) == ((), None, ())


@pytest.mark.parametrize(
    ("fields", "said", "numbers"),
    [
        (
            {"alpha_rule": "proportional"},
            ["alpha.proportional", "alpha.theory_proportional", "alpha.one_rate"],
            {"multiple": 4, "scale": 4, "power": 0.5, "factor": 4},
        ),
        (
            {"alpha_rule": "rslora"},
            ["alpha.fixed", "alpha.theory", "alpha.one_rate"],
            {"low_scale": 32 / math.sqrt(8), "high_scale": 32 / math.sqrt(128), "power": 0.25, "factor": 2},
        ),
        (
            {},
            ["alpha.fixed", "alpha.theory_same", "alpha.one_rate"],
            {"alpha": 32, "low": 8, "low_scale": 4, "high": 128, "high_scale": 0.25},
        ),
        (
            {"lora_alpha": {8: 8, 128: 64}},
            ["alpha.given", "alpha.scale_at_rank", "alpha.scale_at_rank", "alpha.no_theory", "alpha.one_rate"],
            {"scale": 0.5, "rank": 128},
        ),
        ({"learning_rates": (1e-4, 3e-4)}, ["alpha.fixed", "alpha.theory_same", "alpha.own_best_rates"], {}),
        (
            {"learning_rates": (1e-4, 3e-4), "lora_alpha": (16, 32)},
            ["alpha.tuned", "alpha.theory_same", "alpha.own_best_rates"],
            {},
        ),
    ],
)
def test_alpha_rule_reading(make_study: MakeStudy, fields: dict, said: list[str], numbers: dict[str, float]) -> None:
    summary = summarize(make_study(spec=StudySpec(ranks=(8, 128), **fields), floors={8: 1.3, 128: 1.2}))
    found = list(messages_in(summary.readings.alpha))
    assert [message.code for message in found] == said
    known: dict[str, object] = {name: value for message in found for name, value in message.values.items()}
    assert {name: known[name] for name in numbers} == pytest.approx(numbers)
    assert [part.scale for part in summary.ranks] == [
        next(t.scale for t in plan(fields) if (t.rank, t.lora_alpha) == (part.rank, part.lora_alpha))
        for part in summary.ranks
    ]


def test_ranks_are_compared_at_their_own_best_alphas(make_study: MakeStudy) -> None:
    """The trials of rank 8 end lowest at alpha 64, those of rank 128 at alpha 16, by their trial's own floor."""
    spec = StudySpec(ranks=(8, 128), lora_alpha=(16, 64), learning_rates=(1e-4, 3e-4))
    floors = {8: 1.3, 128: 1.2}
    worse = {"r8-a16-lr0.0003": 0.3, "r128-a64-lr0.0003": 0.3}
    summary = summarize(make_study(spec=spec, floors=floors, above=worse))
    assert [(part.lora_alpha, part.best_learning_rate, part.scale) for part in summary.ranks] == [
        (64, 3e-4, 8), (16, 3e-4, 0.125),
    ]  # fmt: skip
    assert [part.lora_alphas for part in summary.ranks] == [(16, 64)] * 2
    assert [(cell.rank, cell.lora_alpha) for cell in summary.at_best_alpha(summary.readings.grid)] == [
        (8, 64), (8, 64), (128, 16), (128, 16),
    ]  # fmt: skip
    lowest = [min(c.eval_loss for c in summary.readings.grid if (c.rank, c.lora_alpha) == (8, a)) for a in (16, 64)]
    assert lowest[1] == summary.ranks[0].eval_loss < lowest[0] - 0.05
    assert {row[0]: row[1:] for row in alpha_table(summary).rows}["8"] == tuple(f"{loss:.4f}" for loss in lowest)
    assert [trial.lora_alpha for trial in summary.trials] == [16, 16, 64, 64] * 2


def plan(fields: dict) -> tuple[TrialRecord, ...]:
    from lorascope.search.trials import plan_trials

    return plan_trials(StudySpec(ranks=(8, 128), **fields))


def test_alpha_rule_of_the_reference_preset_confounds(make_study: MakeStudy) -> None:
    from lorascope.spec.load import find_study, load_spec

    preset = load_spec(find_study("opt-350m-codealpaca"), {})
    summary = summarize(make_study(spec=preset))
    assert [part.scale for part in summary.ranks] == [4.0, 4.0, 4.0]
    assert summary.readings.alpha == (
        Message("alpha.proportional", multiple=4.0, scale=4.0),
        Message("alpha.theory_proportional", power=0.5, factor=math.sqrt(32), low=8, high=256),
        Message("alpha.one_rate"),
    )
