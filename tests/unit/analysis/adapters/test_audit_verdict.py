"""The verdict of an audit: which smaller rank is shown to be enough, if the adapter is worth anything."""

from dataclasses import replace

import pytest

from lorascope.analysis.adapters.audit import summarize_audit
from lorascope.text.say import say
from support.audits import BASE_LOSS, LOSS, audit_records


def test_the_smallest_rank_below_the_tolerance_is_enough() -> None:
    audit = summarize_audit(audit_records({1: 0.3, 2: 0.02, 4: 0.0, 8: 0.0}, spread=0.005))
    assert (audit.verdict, audit.adequate_rank) == ("enough", 4)
    assert [cut.rank for cut in audit.cuts] == [1, 2, 4, 8]
    assert audit.eval_loss == pytest.approx(LOSS, abs=0.2)
    assert audit.change == pytest.approx(LOSS - BASE_LOSS, abs=1e-9)
    assert audit.change_ci95[0] < audit.change < audit.change_ci95[1] < 0
    text = say(audit.text)
    assert text.startswith("Rank 4 of this adapter would have been enough")
    assert "one training run" in text


def test_a_small_rank_does_not_count_where_a_larger_one_is_not_enough() -> None:
    audit = summarize_audit(audit_records({1: 0.0, 2: 0.02, 4: 0.0, 8: 0.0}, spread=0.005))
    assert audit.adequate_rank == 4


def test_an_interval_beyond_the_tolerance_is_not_enough() -> None:
    audit = summarize_audit(audit_records({1: 0.3, 2: 0.004, 4: 0.004, 8: 0.004}))
    assert (audit.verdict, audit.adequate_rank) == ("no_smaller", None)
    assert audit.cuts[-1].excess_loss < audit.tolerance < audit.cuts[-1].excess_loss_ci95[1]
    assert "Truncated to rank 8" in say(audit.text)


def test_an_adapter_that_is_no_better_than_its_base_gets_no_rank() -> None:
    audit = summarize_audit(audit_records({1: 0.0, 8: 0.0}, loss=BASE_LOSS, spread=0.005))
    assert audit.verdict == "no_gain"
    assert audit.adequate_rank == 1
    assert "0.0000 (95% interval" in say(audit.text)


def test_an_adapter_that_gains_less_than_the_tolerance_gets_no_rank() -> None:
    audit = summarize_audit(audit_records({1: 0.0, 8: 0.0}, loss=BASE_LOSS - 0.003, spread=0.001))
    assert audit.change_ci95[1] < 0
    assert audit.verdict == "small_gain"
    assert "The base alone would be enough" in say(audit.text)


def test_few_rows_rank_one_and_losses_that_are_not_finite_have_their_own_words() -> None:
    assert summarize_audit(audit_records({1: 0.0}, rows=19)).verdict == "too_few"
    assert summarize_audit(audit_records({}, rank=1)).verdict == "rank_one"
    whole = audit_records({1: 0.0, 8: 0.0})
    cut = summarize_audit(replace(whole, nats={**whole.nats, 8: (float("nan"),) * 100}))
    assert (cut.verdict, cut.cuts[-1].eval_loss, cut.adequate_rank) == ("no_smaller", None, None)
    assert say(cut.text).count("Truncated to rank 1") == 1
    none = summarize_audit(replace(whole, nats={**whole.nats, 16: (float("nan"),) * 100}))
    assert (none.verdict, none.eval_loss, none.change, none.cuts) == ("not_finite", None, None, ())


def test_spectra_forgetting_and_answers_are_those_measured() -> None:
    audit = summarize_audit(audit_records({1: 0.0}))
    assert [(part.module, part.layers) for part in audit.spectra] == [("q_proj", 2), ("down_proj", 2)]
    assert 1 < audit.spectra[0].effective_rank < 2
    assert audit.forgetting.change == pytest.approx(1 / 30)
    assert audit.generic_text.windows == 3
    assert [(one.row, one.adapter) for one in audit.answers] == [(5, "yes")]
    assert summarize_audit(replace(audit_records({1: 0.0}), forgetting={})).forgetting is None
