"""Comparison of predicted with measured costs."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from lorascope.analysis.cost.predicted_schema import (
    PredictedCostSection,
    PredictedSection,
    PredictedSplitSection,
    PredictedValueSection,
)
from lorascope.analysis.estimates.joint_steps import joint_steps
from lorascope.analysis.study_data import StudyData
from lorascope.analysis.summary import RankSection
from lorascope.records import PredictionRecord


def predicted_part(data: StudyData, ranks: Sequence[RankSection]) -> PredictedSection | None:
    """Compare predictions with measurements; None without predictions."""
    if not data.predictions:
        return None
    records = {(record.what, record.rank): record for record in data.predictions}
    parts = {part.rank: part for part in ranks}
    alone = [_alone(record, parts[record.rank], data) for record in data.predictions if record.what == "alone"]
    joint, full = records.get(("joint", 0)), records.get(("full", 0))
    return PredictedSection(
        device=data.predictions[0].device,
        factor=data.predictions[0].factor,
        ranks=tuple(alone),
        ratio_error=_ratio_error([part.step_seconds for part in alone]),
        joint=_joint(joint, data) if joint else None,
        full_fine_tuning=_part(full, None, None, None) if full else None,
    )


def _alone(record: PredictionRecord, part: RankSection, data: StudyData) -> PredictedCostSection:
    cost = data.costs.get(record.rank)
    return _part(record, fmean(cost.step_tokens) if cost else None, part.step_seconds, part.peak_memory_bytes)


def _joint(record: PredictionRecord, data: StudyData) -> PredictedCostSection:
    """Compare with the steps of as many trials as were predicted; memory may not have held that many."""
    steps = joint_steps(columns.where(~columns.warmup) for columns in data.steps.values())
    whole = steps.trials == group_size(record, data.predictions)
    if not whole.any():
        return _part(record, None, None, None)
    return _part(record, float(steps.tokens[whole].mean()), float(np.median(steps.seconds[whole])), None)


def group_size(joint: PredictionRecord, predictions: Iterable[PredictionRecord]) -> int:
    """Return the number of trials whose joint step was predicted."""
    of_one = next((one.tokens for one in predictions if one.what == "alone"), joint.tokens)
    return round(joint.tokens / of_one)


def _part(
    record: PredictionRecord, tokens: float | None, step_seconds: float | None, peak_bytes: int | None
) -> PredictedCostSection:
    """Make a section; the time, predicted for its own steps' tokens, is scaled to those measured."""
    predicted = record.step_seconds * (tokens / record.tokens if tokens else 1)
    return PredictedCostSection(
        rank=record.rank or None,
        flops_per_token=record.step_flops / record.tokens,
        bytes_per_step=record.step_bytes,
        step_seconds=_value(predicted, step_seconds),
        peak_memory_bytes=_value(record.memory_bytes, peak_bytes),
        memory_split=PredictedSplitSection(
            base_bytes=record.base_bytes,
            adapter_bytes=record.adapter_bytes,
            gradient_bytes=record.gradient_bytes,
            optimizer_bytes=record.optimizer_bytes,
            activation_bytes=record.activation_bytes,
            rest_bytes=record.rest_bytes,
        ),
    )


def _value(predicted: float, measured: float | None) -> PredictedValueSection:
    error = predicted / measured - 1 if measured else None
    return PredictedValueSection(predicted=predicted, measured=measured, error=error)


def _ratio_error(times: Iterable[PredictedValueSection]) -> float | None:
    """Return the largest error of the ratio of a larger rank's time to a smaller one's."""
    known = [(time.predicted, time.measured) for time in times if time.measured]
    errors = [high[0] / low[0] - high[1] / low[1] for low, high in combinations(known, 2)]
    return max(errors, key=abs, default=None)
