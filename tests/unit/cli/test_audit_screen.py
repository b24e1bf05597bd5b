"""The screen of an audit: at most 25 lines of 80 columns, the command that truncates among them."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from lorascope.analysis.adapters.audit import AuditRecords, summarize_audit
from lorascope.cli.audit_screen import show_audit
from lorascope.text.language import language
from lorascope.text.say import say
from support.audits import audit_records


def shown(records: AuditRecords) -> list[str]:
    stream = io.StringIO()
    show_audit(Console(file=stream, width=80), summarize_audit(records))
    return stream.getvalue().splitlines()


def test_an_audit_with_all_parts_fits() -> None:
    lines = shown(audit_records({1: 0.3, 2: 0.02, 4: 0.0, 8: 0.0}, spread=0.005))
    text = "\n".join(lines)
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80
    assert lines[0] == "adapter: rank 16, 12.3 k parameters in 4 layers of model"
    assert "Truncate it lorascope audit my/adapter --truncate 4 --to adapter-r4" in lines
    for start in (
        "ENOUGH",
        "Prompt ",
        "  base ",
        "  adapter   yes",
        "Rows        100 held-out rows",
        "Forgetting ",
        "Notes ",
    ):
        assert any(line.startswith(start) for line in lines), text
    (base,) = (line for line in lines if line.split()[:1] == ["base"] and "(" in line)
    assert "+0.5" in base


@pytest.mark.parametrize("cuts", [10, 14])
def test_a_large_rank_shows_the_cuts_around_the_one_that_is_enough(cuts: int) -> None:
    ranks = [2**power for power in range(cuts)]
    excess = {rank: 0.0 if rank >= 64 else 0.3 for rank in ranks}
    lines = shown(audit_records(excess, rank=2**cuts, spread=0.005))
    assert len(lines) <= 25
    cells = {line.split()[0] for line in lines if line.strip()}
    assert {"base", "32", "64", "128", str(2**cuts)} <= cells


def test_answers_that_are_equal_or_missing_are_not_shown() -> None:
    records = audit_records({1: 0.0})
    for answers in ([], [replace(one, text="same") for one in records.answers]):
        assert not any(line.startswith("Prompt") for line in shown(replace(records, answers=answers)))


def test_every_verdict_has_a_word() -> None:
    for records, word in (
        (audit_records({1: 0.3}), "NOT SHOWN"),
        (audit_records({1: 0.0}, loss=2.0, spread=0.005), "NO GAIN"),
        (audit_records({1: 0.0}, rows=10), "TOO FEW"),
        (audit_records({}, rank=1), "RANK 1"),
        (replace((bad := audit_records({1: 0.0})), nats={**bad.nats, 16: (float("inf"),) * 100}), "NO LOSS"),
    ):
        assert any(line.startswith(word) for line in shown(records)), word


def test_the_verdict_has_words_in_korean() -> None:
    audit = summarize_audit(audit_records({4: 0.0}, spread=0.005))
    with language("ko"):
        assert "4" in say(audit.text)
        assert "adapter" not in say(audit.text)
