from pathlib import Path

import numpy as np
import pytest

import early_exit_replay
from early_exit_replay import Exhaustive
from lorascope.analysis import load_study
from lorascope.errors import InputError
from lorascope.records import EvalRecord, ResolvedStudy, StepRecord, TrialOutcome
from lorascope.search.trials import plan_trials
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.messages import ASKED

STEPS, ROWS, STEP_TOKENS, EVAL_TOKENS = 16, 12, 100, 50
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
EXCESS = (0.3, 0.1, 0.0, 0.2)
RESOLVED = ResolvedStudy(
    model="m", dataset="d", device="cpu", dtype="float32", dtype_reason=ASKED, packing=True, packing_reason=ASKED,
    train_examples=64, eval_examples=ROWS, train_tokens=800, train_target_tokens=800, eval_target_tokens=10 * ROWS,
    total_steps=STEPS, base_parameters=1, target_modules=("q",), data_hash="", model_hash="", data_notes=(),
    kernels=False, kernels_reason=ASKED, eval_tokens=EVAL_TOKENS,
)  # fmt: skip


def write_study(folder: Path, *, turning: bool = False, eval_steps: int = 2, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """A grid whose third rate is the best; with ``turning``, it is the worst until the last evaluation."""
    spec = StudySpec(
        ranks=(8, 64, 256), learning_rates=RATES, seeds=seeds, early_exit=False, max_grid_extensions=0,
        eval_steps=eval_steps,
    )  # fmt: skip
    folder.mkdir()
    (folder / "study.yaml").write_text(dump_spec(spec), encoding="utf-8")
    rows = np.random.default_rng(0).normal(0, 0.3, ROWS)
    with StudyStore.create(folder / "study.db") as store:
        store.put(RESOLVED)
        store.put_all(plan_trials(spec))
        for trial in plan_trials(spec):
            name, excess = trial.trial_id, EXCESS[RATES.index(trial.learning_rate)]
            store.put(TrialOutcome(trial_id=name, state="finished", steps=STEPS, message=None))
            store.put_all(
                [
                    StepRecord(
                        trial_id=name, step=step, nats=1.0, target_tokens=STEP_TOKENS, tokens=STEP_TOKENS,
                        learning_rate=1e-3, grad_norm=1.0, seconds=1.0, warmup=False, group=0,
                    )
                    for step in range(1, STEPS + 1)
                ]
            )  # fmt: skip
            for step in range(0, STEPS + 1, eval_steps):
                loss = 1.0 + (1.0 - excess if turning and step < STEPS else excess) + rows
                store.put_all(
                    [
                        EvalRecord(
                            trial_id=name, step=step, example_nats=tuple((10 * loss).tolist()),
                            example_target_tokens=(10,) * ROWS, seconds=1.0,
                        )
                    ]
                )  # fmt: skip
    return folder


def test_replay_of_ordered_curves_finds_the_best_rate(tmp_path: Path) -> None:
    study = Exhaustive(load_study(write_study(tmp_path / "study")))
    assert study.rungs.steps == (2, 6)
    grid = study.replay(np.random.default_rng(0), eval_steps=2)
    assert grid.same_rates
    assert set(grid.excess_nats.values()) == {0.0}
    # First seed: two rates stop after step 2, one after 6, one goes on. Second seed: one rate. Evaluations as often.
    eighths = (2 * 1 + 3 + 8) + 8
    everything = 2 * 4 * 8
    per_rank = STEP_TOKENS * STEPS / 8 + EVAL_TOKENS
    share = (3 * eighths * per_rank + EVAL_TOKENS) / (3 * everything * per_rank + EVAL_TOKENS)
    assert grid.share == pytest.approx(share, rel=1e-12)


def test_replay_defaults_to_four_evaluations(tmp_path: Path) -> None:
    """Early exit after 2, 6, 11 and 16 steps, the whole grid after each quarter."""
    study = Exhaustive(load_study(write_study(tmp_path / "study", seeds=(0,))))
    grid = study.replay(np.random.default_rng(0), eval_steps=None)
    eighths, everything = 2 * 1 + 3 + 8, 4 * 8
    evaluations = 2 * 1 + 2 + 4
    passed = 3 * (eighths * 2 * STEP_TOKENS + evaluations * EVAL_TOKENS) + EVAL_TOKENS
    assert grid.share == pytest.approx(
        passed / (3 * (everything * 2 * STEP_TOKENS + 4 * 4 * EVAL_TOKENS) + EVAL_TOKENS), rel=1e-12
    )


def test_replay_counts_curves_that_cross(tmp_path: Path) -> None:
    """The replay must expose a wrong rule."""
    study = Exhaustive(load_study(write_study(tmp_path / "study", turning=True)))
    grid = study.replay(np.random.default_rng(0), eval_steps=2)
    assert not grid.same_rates
    assert min(grid.excess_nats.values()) == pytest.approx(0.3)


def test_replay_script_prints_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "study")
    monkeypatch.setattr("sys.argv", ["early_exit_replay.py", str(folder), "--grids", "20"])
    early_exit_replay.main()
    out = capsys.readouterr().out
    assert out.count("20 grids") == 2
    assert "every rank at that rate or within 0.002 nats of it: 100.0%" in out


def test_replay_refuses_a_study_without_evaluations_at_the_rungs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks evaluations after steps \[2, 6, 16\]"):
        Exhaustive(load_study(write_study(tmp_path / "study", eval_steps=4)))
