"""Which rounds fit into the time that is left, at the pace of the run."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lorascope.records import TrialRecord
from lorascope.run import time_budget
from lorascope.run.progress import RunProgress
from lorascope.run.study import _has_time
from lorascope.search.halving import Rungs
from lorascope.search.rounds import SearchRound
from lorascope.search.work import TRAINING, Sizes
from lorascope.spec.schema import StudySpec
from support.cli import Clock

RANK, SHARE = 64, 0.01
SIZES = Sizes(
    total_steps=20, step_tokens=100.0, heaviest_tokens=100.0, eval_tokens=400.0, eval_examples=4,
    adapter_share={"": SHARE},
)  # fmt: skip
TRIAL = TrialRecord(trial_id="r64-s1", rank=RANK, lora_alpha=32.0, scale=1.0, learning_rate=1e-3, seed=1)
STEP_SECONDS, EVALUATION_SECONDS, EVALUATIONS = 3.0, 5.0, 2


@pytest.mark.parametrize(("more", "fits"), [(1.001, True), (0.999, False)])
def test_a_seed_takes_as_long_as_the_one_before(more: float, fits: bool) -> None:
    """An adapter makes every token dearer, and that counts once: in the pace, or in the work."""
    spec, clock = StudySpec(ranks=(RANK,), seeds=(0, 1), eval_steps=10), Clock()
    progress = RunProgress(spec, SIZES, earlier=(), tell=lambda *told: None, began=clock.now, clock=clock)
    dearer = 1 + RANK * SHARE
    clock.now += STEP_SECONDS
    progress.lap("training", TRAINING * 100 * dearer)
    clock.now += EVALUATION_SECONDS
    progress.lap("evaluation", 400 * dearer)
    left = more * (20 * STEP_SECONDS + EVALUATIONS * EVALUATION_SECONDS)
    study, budget = SimpleNamespace(spec=spec), SimpleNamespace(left_for_training=left)
    run: Any = SimpleNamespace(study=study, progress=progress, clock=budget)
    assert _has_time(run, SearchRound(number=1, trials=(TRIAL,), rungs=Rungs(), base_nats=None)) == fits


@pytest.mark.parametrize(("for_training", "for_report", "seconds"), [(900.0, 1000.0, 900.0), (-5.0, 1000.0, 500.0)])
def test_where_the_end_is_near_fewer_steps_take_half_of_its_time(
    monkeypatch: pytest.MonkeyPatch, for_training: float, for_report: float, seconds: float
) -> None:
    """85% of the time is planned, and a unit of work takes 0.01 s."""
    monkeypatch.setattr(time_budget, "study_sizes", lambda study: replace(SIZES, total_steps=10_000, eval_tokens=0.0))
    study: Any = SimpleNamespace(spec=StudySpec(ranks=(8, RANK)))
    clock: Any = SimpleNamespace(left_for_training=for_training, left_for_report=for_report)
    step_seconds = 0.01 * TRAINING * 100 * (2 + (8 + RANK) * SHARE)
    assert time_budget.fewer_steps(study, clock, 0.01) == int(0.85 * seconds / step_seconds)
