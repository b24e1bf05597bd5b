"""Predicted costs compared with measured ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.analysis import StudySummary, summarize
from lorascope.records import PredictionRecord
from lorascope.store import StudyStore
from lorascope.text.tables.costs import predicted_table

RECORD = PredictionRecord(
    what="alone", rank=8, device="A processor, 2 threads", tokens=130.0, step_seconds=0.2, factor=1.0,
    step_flops=13e9, step_bytes=5e9, base_bytes=900_000_000, adapter_bytes=2_000_000, gradient_bytes=1_000_000,
    optimizer_bytes=2_000_000, activation_bytes=90_000_000, rest_bytes=5_000_000,
)  # fmt: skip


def summary_of(folder: Path, *records: PredictionRecord) -> StudySummary:
    with StudyStore.create(folder / "study.db") as store:
        store.put_all(records)
    return summarize(folder)


def test_predicted_times_are_scaled_to_the_measured_tokens(make_study: Callable[..., Path]) -> None:
    summary = summary_of(make_study(), RECORD)
    (part,) = summary.predicted.ranks
    measured = next(rank for rank in summary.ranks if rank.rank == 8)
    # 0.2 s for 130 tokens; the measured steps have 770 tokens in all
    predicted = 0.2 / 130 * 770 / 3
    assert part.step_seconds.predicted == pytest.approx(predicted)
    assert part.step_seconds.measured == measured.step_seconds
    assert part.step_seconds.error == pytest.approx(predicted / measured.step_seconds - 1)
    assert part.flops_per_token == 1e8


def test_predicted_memory_is_a_sum_compared_with_the_peak(make_study: Callable[..., Path]) -> None:
    summary = summary_of(make_study(), RECORD)
    (part,) = summary.predicted.ranks
    assert part.peak_memory_bytes.predicted == 1_000_000_000
    assert part.peak_memory_bytes.measured == 1_008_000_000
    assert part.peak_memory_bytes.error == pytest.approx(1000 / 1008 - 1)


def test_predicted_ratios_are_compared_by_pair_of_ranks(make_study: Callable[..., Path]) -> None:
    times = {8: 0.2, 128: 0.3, 256: 0.33}
    summary = summary_of(make_study(), *(replace(RECORD, rank=rank, step_seconds=s) for rank, s in times.items()))
    by_rank = {part.rank: part.step_seconds for part in summary.predicted.ranks}
    errors = [
        by_rank[high].predicted / by_rank[low].predicted - by_rank[high].measured / by_rank[low].measured
        for low, high in ((8, 128), (8, 256), (128, 256))
    ]
    assert summary.predicted.ratio_error == max(errors, key=abs)


def test_predicted_group_is_compared_where_all_its_trials_ran(make_study: Callable[..., Path]) -> None:
    joint = replace(RECORD, what="joint", rank=0, tokens=390.0, step_seconds=0.9)
    summary = summary_of(make_study(), RECORD, joint)
    part = summary.predicted.joint
    assert part.rank is None
    # the made-up steps take 0.3 s for three trials of 260 tokens
    assert part.step_seconds.measured == pytest.approx(0.3)
    assert part.step_seconds.predicted == pytest.approx(0.9 / 390 * 780)
    assert part.peak_memory_bytes.measured is None


def test_predicted_group_is_not_compared_with_smaller_groups(make_study: Callable[..., Path]) -> None:
    joint = replace(RECORD, what="joint", rank=0, tokens=4 * 130.0, step_seconds=0.9)
    part = summary_of(make_study(), RECORD, joint).predicted.joint
    assert (part.step_seconds.predicted, part.step_seconds.measured) == (0.9, None)


def test_predicted_full_fine_tuning_has_no_measurement(make_study: Callable[..., Path]) -> None:
    summary = summary_of(make_study(), RECORD, replace(RECORD, what="full", rank=0))
    part = summary.predicted.full_fine_tuning
    assert (part.step_seconds.measured, part.step_seconds.error) == (None, None)
    assert summary.predicted.joint is None


def test_predicted_section_is_absent_without_predictions(make_study: Callable[..., Path]) -> None:
    assert summarize(make_study()).predicted is None


def test_predicted_table_shows_errors(make_study: Callable[..., Path]) -> None:
    summary = summary_of(
        make_study(),
        RECORD,
        replace(RECORD, what="full", rank=0, base_bytes=0),
    )
    assert summary.predicted is not None
    table = predicted_table(summary.predicted)
    assert [row[0] for row in table.rows] == ["8", "full fine-tuning"]
    assert table.rows[0][-1] == "-0.8%"
    assert table.rows[1][2:4] == ("–", "–")
    assert "No study" in table.note
    assert table.ranks == (8, None)
