"""The report's charts, each with the words that stand for it."""

from collections.abc import Iterator
from dataclasses import dataclass

from lorascope.analysis import StudyData, StudySummary
from lorascope.charts import cost_specs, costs, data, gains, predicted, rates, specs, usage, usage_specs
from lorascope.charts.data import LossBySteps
from lorascope.charts.vega import Spec
from lorascope.text.language import tr
from lorascope.text.metrics import metric_title


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One chart with its words."""

    name: str
    """File name without its ending."""
    title: str
    caption: str
    spec: Spec
    page_spec: Spec
    """The same for a browser, where it answers the pointer."""


def draw(study: StudyData, summary: StudySummary) -> dict[str, Picture]:
    """Specify every chart that has something to show, by name."""
    made = (
        *_loss_pictures(study, summary),
        *_rate_pictures(study, summary),
        *_rank_pictures(study, summary),
        *_usage_pictures(study, summary),
        *_cost_pictures(study, summary),
        *_memory_pictures(study, summary),
        *_gpu_pictures(study),
    )
    return {picture.name: picture for picture in made}


def _picture(name: str, title: str, caption: str, spec: Spec, page_spec: Spec | None = None) -> Picture:
    return Picture(name=name, title=title, caption=caption, spec=spec, page_spec=page_spec or spec)


def _loss_pictures(study: StudyData, summary: StudySummary) -> Iterator[Picture]:
    training = data.train_loss_by_step(study, summary)
    if training.curves:
        caption = (
            tr("Faint: the loss of each step. Bold: its exponential average over a twentieth of the run.")
            if training.smoothed
            else tr("The loss of each step.")
        )
        yield _curves("train_loss", tr("Training loss by step"), caption, training, study.ranks)
    held_out = data.eval_loss_by_step(study, summary)
    if held_out.curves:
        caption = tr("Step 0 is the base model before training.")
        yield _curves("eval_loss", tr("Held-out loss by step"), caption, held_out, study.ranks)
        if all(curve.seconds for curve in held_out.curves):
            caption = tr("Time of each rank trained alone: its steps times the measured time of one.")
            spec = specs.loss_by_step_spec(held_out, study.ranks, along="seconds")
            page = specs.loss_by_step_spec(held_out, study.ranks, along="seconds", hover=True)
            yield _picture("eval_loss_by_time", tr("Held-out loss by time"), caption, spec, page)


def _curves(name: str, title: str, caption: str, chart: LossBySteps, ranks: tuple[int, ...]) -> Picture:
    if any(curve.ended_early for curve in chart.curves):
        caption = f"{caption} {tr('A cross marks a trial that ended early.')}"
    spec, page = specs.loss_by_step_spec(chart, ranks), specs.loss_by_step_spec(chart, ranks, hover=True)
    return _picture(name, title, caption, spec, page)


def _rate_pictures(study: StudyData, summary: StudySummary) -> Iterator[Picture]:
    by_rate = rates.eval_loss_by_rate(summary)
    if by_rate:
        caption = tr("A cross is the last loss of a rate that was stopped early or diverged, at most the base model's.")
        spec = rates.loss_by_rate_spec(by_rate, study.ranks)
        yield _picture("eval_loss_by_rate", tr("Held-out loss by learning rate"), caption, spec)
    cells = rates.eval_loss_map(summary)
    if cells:
        caption = tr(
            "Mean over seeds; the darker, the lower. In a frame: each rank's best rate. × marks a trial that did not "
            "finish."
        )
        spec = rates.loss_map_spec(cells)
        yield _picture("eval_loss_map", tr("Held-out loss by rank and learning rate"), caption, spec)


def _rank_pictures(study: StudyData, summary: StudySummary) -> Iterator[Picture]:
    excess = data.excess_loss_by_rank(summary)
    if excess.points:
        caption = tr("How far each rank is above the best on the same held-out rows; 95% intervals over the rows.")
        if summary.verdict.seeds > 1:
            caption = tr(
                "How far each rank is above the best on the same held-out rows; 95% intervals over rows and seeds."
            )
        spec = specs.loss_by_rank_spec(excess, study.ranks)
        yield _picture("excess_loss_by_rank", tr("Excess over the best rank"), caption, spec)
    by_rank = data.eval_loss_by_rank(summary)
    if by_rank.points:
        spec = specs.loss_by_rank_spec(by_rank, study.ranks)
        caption = tr("The bar is the 95% interval of each rank by itself; overlapping bars do not mean equal ranks.")
        yield _picture("eval_loss_by_rank", tr("Held-out loss by rank"), caption, spec)
    gained = gains.gain_per_doubling(summary)
    if gained:
        caption = tr("What each step to the next larger rank gains for every doubling on its way; 95% intervals.")
        spec = gains.gain_spec(gained, summary.study.tolerance, study.ranks)
        yield _picture("gain_per_doubling", tr("Gain for each doubling of the rank"), caption, spec)


def _usage_pictures(study: StudyData, summary: StudySummary) -> Iterator[Picture]:
    cuts = usage.cut_curve(summary)
    if cuts is not None:
        caption = tr(
            "Line: the adapter of rank {rank} cut to smaller ranks after training. "
            "Diamonds: adapters trained at their rank.",
            rank=cuts.top,
        )
        title = tr("Rank {rank} cut after training", rank=cuts.top)
        yield _picture("truncated_loss", title, caption, usage_specs.cut_curve_spec(cuts, study.ranks))
    use = usage.use_by_layer(study, summary)
    if use is not None:
        caption = tr(
            "Directions that the update of rank {rank} uses in each layer, from the input to the output.", rank=use.top
        )
        title = tr("Effective rank by layer")
        yield _picture("effective_rank", title, caption, usage_specs.use_by_layer_spec(use))
    forgotten = data.forgetting_by_rank(summary)
    if forgotten.points:
        caption = tr("Above the line, the model predicts the generic text worse than before training; 95% intervals.")
        title = tr("Change on the generic text")
        yield _picture("forgetting", title, caption, gains.forgetting_spec(forgotten, study.ranks))


def _cost_pictures(study: StudyData, summary: StudySummary) -> Iterator[Picture]:
    runtimes = costs.runtime_by_rank(summary)
    if runtimes:
        caption = tr("All training steps of one rank alone: their number times the median of the measured steps.")
        yield _picture("runtime", tr("Runtime"), caption, cost_specs.runtime_spec(runtimes, study.ranks))
    yield from _predicted_pictures(study, summary)
    hollow = tr("Filled: no other rank is as good in loss, time and memory and better in one of them. Hollow: one is.")
    by_time = costs.loss_against_runtime(summary)
    if by_time:
        divisor, unit = cost_specs.time_unit(max(point.cost for point in by_time))
        title = metric_title("runtime_seconds", unit=unit)
        spec = cost_specs.trade_off_spec(by_time, title, summary.study.tolerance, study.ranks, divisor=divisor)
        yield _picture("loss_against_time", tr("Loss against time"), hollow, spec)
    by_memory = costs.loss_against_memory(summary)
    if by_memory:
        title = metric_title("peak_memory_bytes", unit="MB")
        spec = cost_specs.trade_off_spec(by_memory, title, summary.study.tolerance, study.ranks)
        yield _picture("loss_against_memory", tr("Loss against memory"), hollow, spec)


def _predicted_pictures(study: StudyData, summary: StudySummary) -> Iterator[Picture]:
    caption = tr("Circle: measured. Diamond: predicted before anything was measured.")
    steps = predicted.predictions(summary, "step_seconds")
    if steps:
        spec = predicted.prediction_spec(steps, metric_title("step_seconds"), study.ranks)
        yield _picture("predicted_step", tr("Time of a step, predicted and measured"), caption, spec)
    memory = predicted.predictions(summary, "peak_memory_bytes")
    if memory:
        spec = predicted.prediction_spec(memory, metric_title("peak_memory_bytes", unit="MB"), study.ranks)
        yield _picture("predicted_memory", tr("Peak memory, predicted and measured"), caption, spec)


def _memory_pictures(study: StudyData, summary: StudySummary) -> Iterator[Picture]:
    shares = costs.memory_split(study, summary)
    if shares:
        caption = tr("What the memory at each rank's peak was, one rank alone. 1 MB is 10^6 bytes.")
        spec = cost_specs.memory_split_spec(shares, study.ranks)
        yield _picture("memory_split", tr("Peak memory by part"), caption, spec)
    memory = metric_title("memory")
    readings = costs.memory_over_readings(study)
    if readings:
        caption = tr("Readings of memory, one after the other, while one rank trained alone, warm-up included.")
        spec = cost_specs.rank_series_spec(readings, tr("reading"), memory, study.ranks)
        yield _picture("memory_alone", tr("Memory while a rank trained alone"), caption, spec)
    over_time = costs.memory_over_time(study)
    if over_time:
        caption = tr("Memory of the process over the whole study, all trials and measurements together.")
        spec = cost_specs.series_spec(over_time, tr("time (min)"), memory)
        yield _picture("memory_over_time", tr("Memory over the study"), caption, spec)


def _gpu_pictures(study: StudyData) -> Iterator[Picture]:
    titles = {
        "gpu_memory": tr("GPU memory in use (%)"),
        "gpu_memory_access": tr("Time in which GPU memory was read or written (%)"),
        "gpu_utilization": tr("Time in which the GPU computed (%)"),
    }
    for name, series in costs.gpu_series(study).items():
        caption = tr("While each rank trained alone, as NVIDIA's library tells.")
        spec = cost_specs.rank_series_spec(series, tr("time (s)"), titles[name], study.ranks)
        yield _picture(name, titles[name], caption, spec)
