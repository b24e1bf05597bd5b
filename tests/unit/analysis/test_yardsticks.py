import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.analysis import load_study, summarize_data
from lorascope.report.provenance import study_details
from lorascope.text.tables.ranks import rank_table

MakeStudy = Callable[..., Path]


def test_bits_per_byte_and_tokens_per_parameter_by_hand(make_study: MakeStudy) -> None:
    data = load_study(make_study())
    assert data.resolved is not None
    resolved = replace(data.resolved, eval_target_tokens=100, eval_target_bytes=400, train_target_tokens=6000)
    summary = summarize_data(replace(data, resolved=resolved))
    for part in summary.ranks:
        assert part.eval_loss is not None
        assert part.bits_per_byte == pytest.approx(part.eval_loss / math.log(2) / 4)
        assert data.steps_per_epoch is not None
        share = min(1.0, resolved.total_steps / data.steps_per_epoch)
        assert part.target_tokens_per_parameter == pytest.approx(6000 * share / (part.rank * 50_000))
    base = summary.trials[0].base_eval_loss
    assert summary.study.base_bits_per_byte == pytest.approx(base / math.log(2) / 4)
    table = rank_table(summary)
    assert table.rows[0][table.header.index("bits/byte")] == f"{summary.ranks[0].bits_per_byte:.4f}"
    assert "target tokens per parameter" in table.header
    assert dict(study_details(summary))["bits per byte of the base"] == f"{summary.study.base_bits_per_byte:.4f}"


def test_a_study_that_counted_no_bytes_has_none_per_byte(make_study: MakeStudy) -> None:
    summary = summarize_data(load_study(make_study()))
    assert {part.bits_per_byte for part in summary.ranks} == {summary.study.base_bits_per_byte} == {None}
    assert "bits/byte" not in rank_table(summary).header
