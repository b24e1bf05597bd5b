from typing import Any

import pytest

from comparison import largest_difference, spread, standings
from growth import growth_table, measured
from jobs import Result, StepShare
from peers import jobs_of, read_options


def result(program: str, seconds: float, *, rank: int = 8, peak: int = 100, **changes: Any) -> Result:
    fields: dict[str, object] = {
        "program": program, "ranks": (rank,), "train_seconds": seconds, "process_seconds": seconds + 10,
        "peak_rss_bytes": peak, "before_rss_bytes": 40, "steps": 2, "tokens": 60, "train_loss": {f"r{rank}": 1.5},
        "trainable_parameters": 3, "data_hash": "", "threads": 2, "dtype": "float32", "settings": {},
    }  # fmt: skip
    return Result.model_validate(fields | changes)


ROUNDS = [
    [result("lorascope", 10.0, tokens=120, ranks=(8, 128)), result("trl", 25.0)],
    [result("lorascope", 8.0, tokens=120, ranks=(8, 128)), result("trl", 28.0, rank=128, peak=320)],
    [result("lorascope", 16.0, tokens=120, ranks=(8, 128)), result("trl", 24.0)],
]


def test_ratios_are_taken_round_by_round_for_all_ranks() -> None:
    ours, theirs = standings(ROUNDS)
    assert (ours.ratio.low, ours.ratio.median, ours.ratio.high) == (1, 1, 1)
    assert (theirs.ratio.low, theirs.ratio.median, theirs.ratio.high) == (3, 5, 7)
    assert theirs.train_seconds == spread([50, 56, 48])
    assert theirs.process_seconds == spread([70, 76, 68])
    assert theirs.tokens_per_second == spread([120 / 50, 120 / 56, 120 / 48])
    assert (theirs.peak_rss_bytes.low, theirs.peak_rss_bytes.high) == (100, 320)
    assert theirs.train_loss == {"r8": 1.5, "r128": 1.5}


def test_the_largest_difference_is_relative_and_over_all_trials_and_steps() -> None:
    one = result("lorascope", 1.0, step_losses={"r8": (2.0, 1.01), "r128": (2.0, 0.9)})
    other = result("lorascope-float32", 1.0, step_losses={"r8": (2.0, 1.0), "r128": (2.0, 1.0)})
    assert largest_difference(one, other) == pytest.approx(0.1)


def test_growth_excludes_the_first_step() -> None:
    share = StepShare(step=2, training_seconds=1.0, step_seconds=2.0, product_seconds=0.5, products=1, flops=1)
    assert share.share == pytest.approx(0.25)
    case = measured(
        "a", result("lorascope", 9.0, step_seconds=(7.0, 1.0, 1.0), step_tokens=(10, 25, 15), shares=(share,))
    )
    assert (case.tokens, case.token_seconds, case.bound_token_seconds) == (40, 2 / 40, 0.5 / 25)
    assert (case.training_bytes, case.adapter_bytes) == (60, 48)


def test_growth_of_memory_and_adapter_bytes() -> None:
    timed: dict[str, Any] = {"step_seconds": (1.0,), "step_tokens": (10,)}
    results = [result("lorascope", 1.0, peak=100 + n * 20, trainable_parameters=n, **timed) for n in (1, 3, 9)]
    cases = [measured("a case", one) for one in results]
    grown = growth_table("trials", cases).columns[-1]
    assert list(grown.cells) == ["", f"{20 / 16:.2f}", f"{20 / 16:.2f}"]


def test_three_rounds_train_each_peer_once_with_every_rank() -> None:
    options = read_options(["--ranks", "4,8,16", "--peers", "trl,trainer"])
    rounds = [jobs_of(options, "a model", number) for number in range(3)]
    assert [[job.program for job in jobs] for jobs in rounds] == [
        ["lorascope", "lorascope-shared", "trainer", "trl"]
    ] * 3
    assert {job.ranks for jobs in rounds for job in jobs[:2]} == {(4, 8, 16)}
    assert [jobs[3].ranks for jobs in rounds] == [(4,), (8,), (16,)]
    assert {(job.model, job.rows) for jobs in rounds for job in jobs} == {("a model", 64)}
    assert [job.bound_steps > 0 for job in rounds[0]] == [True, False, False, False]
