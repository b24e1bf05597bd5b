"""Charts: the numbers they show, the specification they become, and that they draw."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lorascope.analysis import StudyData, StudySummary, load_study, summarize_data
from lorascope.charts.colors import rank_colors, rank_dash
from lorascope.charts.curves import Curve, LossByStep, loss_by_step_spec
from lorascope.charts.downsample import smooth
from lorascope.charts.plots import loss_by_step, training_signals
from lorascope.charts.plots.eval_loss_by_rate import eval_loss_by_rate, loss_by_rate_spec
from lorascope.charts.plots.gain_per_doubling import GainPoint, gain_spec
from lorascope.charts.plots.gpu import gpu_series
from lorascope.charts.plots.loss_against_cost import (
    loss_against_memory,
    loss_against_runtime,
    trade_off_spec,
)
from lorascope.charts.plots.loss_by_rank import excess_loss_by_rank, loss_by_rank_spec, metric_by_rank
from lorascope.charts.plots.loss_by_step import eval_loss_by_step, train_loss_by_step
from lorascope.charts.plots.memory_split import memory_split, memory_split_spec
from lorascope.charts.plots.training_signals import signal_by_step
from lorascope.charts.render import svg_to_html, svg_to_png, to_svg
from lorascope.charts.series import rank_series_spec
from lorascope.records import GpuSample, TrialOutcome
from lorascope.spec.schema import StudySpec
from support.messages import verbatim
from support.solo_runs import solo_run

MakeStudy = Callable[..., Path]


def study(folder: Path) -> tuple[StudyData, StudySummary]:
    data = load_study(folder)
    return data, summarize_data(data)


def luminance(color: str) -> float:
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 6, 10])
def test_colors_of_ranks_are_distinct_on_light_and_dark(n_ranks: int) -> None:
    colors = rank_colors([2**n for n in range(n_ranks)])
    assert len(set(colors.values())) == n_ranks
    for color in colors.values():
        assert contrast(color, "#ffffff") >= 3
        assert contrast(color, "#14161a") >= 2.9


def test_colors_of_ranks_rise_in_lightness() -> None:
    colors = rank_colors([256, 8, 128])
    assert list(colors) == [8, 128, 256]
    assert all(luminance(colors[low]) < luminance(colors[high]) for low, high in pairwise(colors))
    assert colors == rank_colors((8, 128, 256))


def test_colors_of_eight_ranks_differ_in_grayscale() -> None:
    dashes = rank_dash([2**n for n in range(8)])
    assert list(dashes) == [2**n for n in range(8)]
    assert len({tuple(dash) for dash in dashes.values()}) == 8


def test_training_curve_has_every_step(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    chart = train_loss_by_step(data, summary)
    assert [curve.rank for curve in chart.curves] == [8, 128, 256]
    first = chart.curves[0]
    assert first.steps == tuple(range(1, 81))
    assert first.losses[4] == data.steps["r8"].nats[4] / data.steps["r8"].target_tokens[4]


def test_long_curve_is_downsampled_with_its_peaks(make_study: MakeStudy) -> None:
    data, summary = study(make_study(steps=1300))
    steps = data.steps["r8"]
    curve = train_loss_by_step(data, summary).curves[0]
    assert 500 <= len(curve.steps) <= loss_by_step.MAX_POINTS
    assert (curve.steps[0], curve.steps[-1]) == (1, 1300)
    assert (min(curve.losses), max(curve.losses)) == (steps.losses.min(), steps.losses.max())
    assert list(curve.losses) == [steps.losses[step - 1] for step in curve.steps]


def test_long_curve_is_smoothed_before_downsampling(make_study: MakeStudy) -> None:
    data, summary = study(make_study(steps=1200))
    steps = data.steps["r8"]
    pairs = (steps.nats[0::2] + steps.nats[1::2]) / (steps.target_tokens[0::2] + steps.target_tokens[1::2])
    expected = dict(zip(range(2, 1201, 2), smooth(pairs.tolist()), strict=True))
    curve = train_loss_by_step(data, summary).curves[0]
    shown = [(step, loss) for step, loss in zip(curve.steps, curve.smoothed, strict=True) if step % 2 == 0]
    assert len(shown) > 100
    assert [loss for _, loss in shown] == pytest.approx([expected[step] for step, _ in shown])


def test_curves_by_tokens_and_by_solo_time(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    train, held_out = train_loss_by_step(data, summary), eval_loss_by_step(data, summary)
    assert train.curves[0].tokens == tuple(260 * step for step in range(1, 81))
    assert held_out.curves[0].tokens == tuple(260 * step for step in (0, 20, 40, 60, 80))
    alone = summary.ranks[1].step_seconds
    assert alone is not None
    assert held_out.curves[1].seconds == tuple(step * alone for step in (0, 20, 40, 60, 80))
    offered = [choice["field"] for choice in loss_by_step_spec(held_out, data.ranks)["usermeta"]["x"]]
    assert offered == ["step", "tokens", "seconds"]


def test_curves_by_time_need_a_measured_time(make_study: MakeStudy) -> None:
    data, summary = study(make_study(costs=False))
    held_out = eval_loss_by_step(data, summary)
    assert held_out.curves[0].seconds == ()
    offered = [choice["field"] for choice in loss_by_step_spec(held_out, data.ranks)["usermeta"]["x"]]
    assert offered == ["step", "tokens"]


def test_curves_of_other_trials_are_drawn_behind_with_few_points(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4), seeds=(0, 1))
    data, summary = study(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, steps=400))
    chart = train_loss_by_step(data, summary)
    assert [curve.trial_id for curve in chart.curves] == ["r8-lr0.0003", "r128-lr0.0003"]
    assert {curve.trial_id for curve in chart.others} == {trial.trial_id for trial in summary.trials} - {
        curve.trial_id for curve in chart.curves
    }
    assert max(len(curve.steps) for curve in chart.others) <= loss_by_step.MAX_OTHER_POINTS
    drawn = loss_by_step_spec(chart, data.ranks)
    behind = next(layer for layer in drawn["layer"] if layer.get("transform") == [{"filter": "others"}])
    assert {row["trial"] for row in behind["data"]["values"]} == {curve.trial_id for curve in chart.others}
    assert {"name": "others", "value": False} in drawn["params"]


def test_curve_axis_ignores_a_diverging_loss() -> None:
    calm = Curve(rank=8, steps=(1, 2), losses=(2.0, 1.0), smoothed=(2.0, 1.0), ended_early=False)
    lost = Curve(rank=16, steps=(1, 2), losses=(2.0, 90.0), smoothed=(2.0, 90.0), ended_early=True)
    spec = loss_by_step_spec(LossByStep(metric="train_loss", curves=(calm, lost)), (8, 16))
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert 0.5 < low < 1 < 3 < high < 3.5
    cross = next(layer for layer in spec["layer"] if layer["mark"].get("shape") == "cross")
    assert cross["data"]["values"][0]["smoothed"] == high
    assert spec["layer"][0]["mark"]["clip"]


def test_smoothing_is_a_weighted_mean_without_a_start_value() -> None:
    assert smooth([2.0] * 50) == pytest.approx((2.0,) * 50)
    assert smooth([3.0, 1.0]) == (3.0, 1.0)
    keep = 1 - 20 / 40
    assert smooth([3.0, 1.0] + [0.0] * 38)[1] == pytest.approx((keep * 3 + 1) / (keep + 1))
    assert smooth([]) == ()


def test_held_out_curve_starts_at_the_base_model(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    curve = eval_loss_by_step(data, summary).curves[2]
    assert curve.steps == (0, 20, 40, 60, 80)
    assert curve.losses[0] == summary.trials[2].base_eval_loss
    assert curve.losses[-1] == summary.trials[2].eval_loss
    assert curve.smoothed == curve.losses


def test_curve_of_a_trial_that_ended_early_is_marked(make_study: MakeStudy) -> None:
    lost = {"r128": TrialOutcome(trial_id="r128", state="diverged", steps=30, message=None)}
    data, summary = study(make_study(done={"r128": 30}, outcomes=lost))
    chart = train_loss_by_step(data, summary)
    assert [curve.ended_early for curve in chart.curves] == [False, True, False]
    assert chart.curves[1].steps[-1] == 30
    marks = [layer["mark"] for layer in loss_by_step_spec(chart, data.ranks)["layer"]]
    assert [mark.get("shape") for mark in marks] == [None, None, "cross", None, None]


def test_loss_by_rank_has_intervals(make_study: MakeStudy) -> None:
    _, summary = study(make_study())
    loss, excess = metric_by_rank(summary, "eval_loss"), excess_loss_by_rank(summary)
    assert [(point.value, (point.low, point.high)) for point in loss.points] == [
        (part.eval_loss, part.eval_loss_ci95) for part in summary.ranks
    ]
    assert [(point.low, point.high) for point in excess.points] == [part.excess_loss_ci95 for part in summary.ranks]
    assert (loss.tolerance, excess.tolerance) == (None, 0.005)


def test_excess_by_rank_is_absent_for_one_rank(make_study: MakeStudy) -> None:
    _, summary = study(make_study(floors={8: 1.2}))
    assert excess_loss_by_rank(summary).points == ()


def test_curves_of_a_study_without_steps_are_empty(make_study: MakeStudy) -> None:
    data, summary = study(make_study(done={"r8": 0, "r128": 0, "r256": 0}))
    assert train_loss_by_step(data, summary).curves == ()
    assert metric_by_rank(summary, "eval_loss").points == ()


def test_chart_axes_have_units_and_shared_colors(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    specs = [
        loss_by_step_spec(train_loss_by_step(data, summary), data.ranks),
        loss_by_step_spec(eval_loss_by_step(data, summary), data.ranks),
        loss_by_rank_spec(metric_by_rank(summary, "eval_loss"), data.ranks),
        loss_by_rank_spec(excess_loss_by_rank(summary), data.ranks),
    ]
    for spec, title in zip(specs, ("training loss", "held-out loss", "held-out loss", "excess over"), strict=True):
        text = json.dumps(spec)
        assert f'"title": "{title}' in text
        assert "(nats/token)" in text
        scales = [layer["encoding"]["color"]["scale"] for layer in spec["layer"] if "color" in layer["encoding"]]
        assert {tuple(scale["range"]) for scale in scales} == {tuple(rank_colors(data.ranks).values())}


def test_tolerance_line_separates_values(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    spec = loss_by_rank_spec(excess_loss_by_rank(summary), data.ranks)
    below, above, tolerance = (layer for layer in spec["layer"] if layer["mark"]["type"] == "text")

    def ranks(layer: dict) -> list[str]:
        return [row["rank"] for row in layer["data"]["values"]]

    assert (ranks(below), ranks(above)) == (["128", "256"], ["8"])
    assert tolerance["data"]["values"] == [{"at": 0.005, "words": "tolerance"}]


def test_axes_of_costs_begin_at_zero(make_study: MakeStudy) -> None:
    _, summary = study(make_study())
    spec = trade_off_spec(loss_against_memory(summary), "MB", 0.005, (8, 128, 256))
    assert all(layer["encoding"]["x"]["scale"]["domainMin"] == 0 for layer in spec["layer"][:3])


def test_a_chart_draws_to_svg_png_and_html(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    spec = loss_by_rank_spec(metric_by_rank(summary, "eval_loss"), data.ranks)
    assert svg_to_png(to_svg(spec)).startswith(b"\x89PNG")
    svg = to_svg(spec)
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "held-out loss (nats/token)" in svg
    html = svg_to_html(svg, label='a "chart" <b>')
    assert html.startswith('<figure role="img" aria-label="a &quot;chart&quot; &lt;b&gt;"><svg')
    assert "currentColor" in html


def test_chart_of_rates_joins_finished_losses_and_marks_stopped_ones(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4, 1e-3))
    stopped = TrialOutcome(trial_id="r8-lr0.0001", state="stopped", steps=20, message=verbatim("behind"))
    folder = make_study(
        spec=spec, floors={8: 1.3, 128: 1.2}, done={"r8-lr0.0001": 20}, outcomes={"r8-lr0.0001": stopped}
    )
    data, summary = study(folder)
    points = eval_loss_by_rate(data, summary)
    assert [(point.rank, point.learning_rate, point.step, point.stopped) for point in points] == [
        (8, 1e-4, 20, True), (8, 3e-4, 80, False), (8, 1e-3, 80, False), (128, 1e-4, 80, False),
        (128, 3e-4, 80, False), (128, 1e-3, 80, False),
    ]  # fmt: skip
    assert [point.loss for point in points] == [trial.eval_loss for trial in summary.trials]
    drawn = loss_by_rate_spec(points, (8, 128))
    joined, crossed = drawn["layer"][0]["data"]["values"], drawn["layer"][2]["data"]["values"]
    assert {row["step"] for row in joined} == {80}
    assert [row["step"] for row in crossed] == [20]
    assert ET.fromstring(to_svg(drawn)) is not None


def test_chart_of_rates_compares_unfinished_trials_at_a_step_that_all_have(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4))
    done = {"r8-lr0.0001": 20, "r8-lr0.0003": 60, "r128-lr0.0001": 45, "r128-lr0.0003": 60}
    data, summary = study(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done=done))
    points = eval_loss_by_rate(data, summary)
    assert len(points) == 4
    assert {(point.step, point.stopped) for point in points} == {(20, False)}


def test_chart_of_rates_leaves_out_trials_on_their_way(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), learning_rates=(1e-4, 3e-4))
    data, summary = study(make_study(spec=spec, floors={8: 1.3, 128: 1.2}, done={"r128-lr0.0003": 45}))
    points = eval_loss_by_rate(data, summary)
    assert {(point.rank, point.learning_rate) for point in points} == {(8, 1e-4), (8, 3e-4), (128, 1e-4)}


def test_chart_of_rates_needs_several_rates(make_study: MakeStudy) -> None:
    assert eval_loss_by_rate(*study(make_study())) == ()


def test_axis_holds_the_whole_band_of_the_seeds() -> None:
    curve = Curve(
        rank=8, steps=(1, 2), losses=(2.0, 1.5), smoothed=(2.0, 1.5), ended_early=False, low=(1.9, 1.1), high=(2.2, 1.9)
    )  # fmt: skip
    spec = loss_by_step_spec(LossByStep(metric="eval_loss", curves=(curve,)), (8,))
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low < 1.1
    assert high > 2.2


def test_curve_of_several_seeds_is_their_mean_and_range(make_study: MakeStudy) -> None:
    spec = StudySpec(ranks=(8, 128), seeds=(0, 1, 2))
    data, summary = study(make_study(spec=spec, floors={8: 1.3, 128: 1.2}))
    curve = eval_loss_by_step(data, summary).curves[0]
    losses = [[record.loss for record in data.evaluations[name]] for name in ("r8", "r8-s1", "r8-s2")]
    for place, at_step in enumerate(zip(*losses, strict=True)):
        assert curve.smoothed[place] == pytest.approx(sum(at_step) / 3)
        assert (curve.low[place], curve.high[place]) == (min(at_step), max(at_step))
    assert summary.ranks[0].eval_loss == pytest.approx(curve.smoothed[-1])
    drawn = loss_by_step_spec(eval_loss_by_step(data, summary), data.ranks)
    assert drawn["layer"][0]["mark"]["type"] == "area"


def test_curves_can_be_smoothed_more_or_not_at_all(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    train = train_loss_by_step(data, summary)
    losses = data.steps["r8"].losses.tolist()
    assert list(train.curves[0].smoother) == pytest.approx(list(smooth(losses, 1 / 5)))
    offered = loss_by_step_spec(train, data.ranks)["usermeta"]["y"]
    assert [choice["field"] for choice in offered] == ["smoothed", "smoother", "loss"]
    assert loss_by_step_spec(eval_loss_by_step(data, summary), data.ranks)["usermeta"]["y"] == []


def test_crosshair_has_every_rank_at_its_step(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    held_out = eval_loss_by_step(data, summary)
    rows = loss_by_step_spec(held_out, data.ranks, hover=True)["layer"][-1]["data"]["values"]
    assert len(rows) == 3 * 5
    for row in rows:
        place = held_out.curves[0].steps.index(row["step"])
        for curve in held_out.curves:
            assert row[f"r{curve.rank}"] == pytest.approx(curve.smoothed[place], rel=1e-4)


def test_gradient_norm_and_learning_rate_are_drawn_for_every_rank(make_study: MakeStudy) -> None:
    data, summary = study(make_study())
    rates = signal_by_step(data, summary, "learning_rate")
    assert [one.name for one in rates] == ["8", "128", "256"]
    assert rates[0].times == tuple(range(1, 81))
    assert list(rates[0].values) == data.steps["r8"].learning_rate.tolist()
    assert set(signal_by_step(data, summary, "grad_norm")[0].values) == {0.5}
    names = [chart.name for chart in training_signals.charts(data, summary)]
    assert names == ["grad_norm", "learning_rate"]


def test_gpu_charts_show_measured_counters_only(make_study: MakeStudy) -> None:
    data, _ = study(make_study(floors={8: 1.3, 128: 1.2}))
    assert gpu_series(data) == {}

    def sample(second: float, rank: int | None, used: int | None) -> GpuSample:
        return GpuSample(
            seconds=second, rank=rank, uuid="GPU-1", name="made up", memory_used_bytes=used, memory_total_bytes=400,
            utilization_percent=80, memory_utilization_percent=None, power_watts=None, sm_clock_mhz=None,
            memory_clock_mhz=None, temperature_celsius=None, throttle_reasons=None,
        )  # fmt: skip

    told = replace(data, gpu_samples=(sample(0, 8, 100), sample(1, 8, None), sample(0, 128, 200), sample(9, None, 1)))
    found = gpu_series(told)
    assert set(found) == {"gpu_memory", "gpu_utilization"}
    assert [(one.name, one.times, one.values) for one in found["gpu_memory"]] == [
        ("8", (0,), (25.0,)), ("128", (0,), (50.0,)),
    ]  # fmt: skip
    assert found["gpu_utilization"][0].values == (80.0, 80.0)
    assert ET.fromstring(to_svg(rank_series_spec(found["gpu_utilization"], "time (s)", "%", (8, 128)))) is not None


def test_memory_split_adds_up_to_the_peak(make_study: MakeStudy) -> None:
    """By phase and part, or by counted sizes for a rank whose heaviest batch was not measured."""
    data, summary = study(make_study(floors={8: 1.3, 128: 1.2}, runs=[*map(solo_run, (8, 128, 8), (0, 0, 1))]))
    shares = memory_split(data, summary)
    parts = {
        8: ["program", "base model", "adapter", "gradient", "optimizer", "activations", "the rest"],
        128: ["base model and program", "adapter", "gradient", "optimizer", "activations and the rest"],
    }
    for part in summary.ranks:
        of_rank = [share for share in shares if share.rank == part.rank]
        assert part.peak_memory_bytes is not None
        assert sum(share.megabytes for share in of_rank) >= part.peak_memory_bytes / 1e6 - 1e-6
        assert [share.part for share in of_rank] == parts[part.rank]
    assert ET.fromstring(to_svg(memory_split_spec(shares, (8, 128)))) is not None


def test_loss_against_cost_places_every_rank(make_study: MakeStudy) -> None:
    _, summary = study(make_study())
    by_time, by_memory = loss_against_runtime(summary), loss_against_memory(summary)
    assert [point.cost for point in by_time] == [part.runtime_seconds for part in summary.ranks]
    assert [point.cost for point in by_memory] == [part.peak_memory_bytes / 1e6 for part in summary.ranks]
    assert [(point.excess, point.pareto) for point in by_time] == [
        (part.excess_loss, part.pareto) for part in summary.ranks
    ]


def test_gain_labels_avoid_lines() -> None:
    near = GainPoint(smaller=8, larger=16, value=0.002, low=0.0003, high=0.0045)
    spec = gain_spec((near,), 0.005, (8, 16))
    (label,) = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text" and "dy" in layer["mark"]]
    assert label["data"]["values"][0]["end"] == "high"  # zero is as near below as the tolerance above
    free = GainPoint(smaller=8, larger=16, value=-0.002, low=-0.008, high=0.0048)
    spec = gain_spec((free,), 0.005, (8, 16))
    (label,) = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text" and "dy" in layer["mark"]]
    assert label["data"]["values"][0]["end"] == "low"
