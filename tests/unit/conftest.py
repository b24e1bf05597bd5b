"""Made-up studies for tests of code that reads records."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lorascope.analysis import study_data
from lorascope.records import (
    AdapterRecord,
    Environment,
    EvalRecord,
    MachineRates,
    ResolvedStudy,
    SoloRun,
    StepRecord,
    TrialOutcome,
)
from lorascope.search.trials import plan_trials
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from support.messages import verbatim
from support.solo_runs import solo_run

analysis_summarize = sys.modules["lorascope.analysis.summarize"]  # the package's function hides the module
MakeStudy = Callable[..., Path]
DEFAULT_FLOORS = {8: 1.30, 128: 1.20, 256: 1.201}


def facts_of(steps: int, n_eval: int, model: str = "made-up/model") -> ResolvedStudy:
    return ResolvedStudy(
        model=model, dataset="made-up/rows", device="cpu", dtype="float32", dtype_reason=verbatim("faster on this CPU"),
        packing=True, packing_reason=verbatim("packed logits equal padded ones"), kernels=True,
        kernels_reason=verbatim("compiled with g++"), train_examples=8 * steps // 2,
        eval_examples=n_eval, train_tokens=51_000, train_target_tokens=40_000, eval_target_tokens=20 * n_eval,
        total_steps=steps, base_parameters=134_515_008, target_modules=("layers.0.q_proj", "layers.0.v_proj"),
        eval_tokens=26 * n_eval,
        data_hash="d" * 12, model_hash="e" * 12, data_notes=(verbatim("3 rows were cut at 128 tokens."),),
    )  # fmt: skip


ENVIRONMENT = Environment(
    started="2026-01-02T03:04:05+00:00", lorascope_version="0.1.0", commit="abc1234", python="3.11.9",
    packages={"torch": "2.6.0", "transformers": "5.0.0"}, os="Linux", cpu="A processor", cpu_cores=2,
    memory_bytes=8_000_000_000, device="cpu", device_name="A processor", threads=2, seeds=(0,),
    command="lorascope run --ranks 8,128,256",
)  # fmt: skip


def curve(floor: float, step: int, steps: int) -> float:
    return floor + (2.4 - floor) * float(np.exp(-6 * step / steps))


def correct_of(losses: np.ndarray) -> tuple[int, ...]:
    """Of 20 target tokens as many correct ones as a loss of so many nats a token leaves likely."""
    return tuple(np.rint(20 * np.exp(-np.clip(losses, 0, 5))).astype(int).tolist())


def write_trial(
    store: StudyStore, trial_id: str, *, floor: float, steps: int, done: int, n_eval: int, seed: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    store.put_all(
        [
            StepRecord(
                trial_id=trial_id, step=n, nats=200 * (curve(floor, n - 1, steps) + rng.normal(0, 0.08)),
                target_tokens=200, tokens=260, learning_rate=3e-4 * (1 - (n - 1) / steps), grad_norm=0.5,
                seconds=0.3, warmup=n <= 2, group=0,
            )
            for n in range(1, done + 1)
        ]
    )  # fmt: skip
    rows = np.random.default_rng(7).normal(0, 0.5, n_eval)
    evaluations = []
    for step in (0, steps // 4, steps // 2, 3 * steps // 4, steps):
        if step <= done:
            losses = curve(floor, step, steps) + rows + rng.normal(0, noise if step else 0.0, n_eval)
            evaluations.append(
                EvalRecord(
                    trial_id=trial_id, step=step, example_nats=tuple((20 * losses).tolist()),
                    example_target_tokens=(20,) * n_eval, seconds=1.0,
                    example_correct_tokens=correct_of(losses) if step in {0, steps} else None,
                )
            )  # fmt: skip
    store.put_all(evaluations)


def write_costs(store: StudyStore, ranks: tuple[int, ...], runs: Sequence[SoloRun] | None) -> None:
    """Write the adapters' sizes and the given solo runs, else those and the machine's rates as a run writes them."""
    for rank in ranks:
        store.put(
            AdapterRecord(
                rank=rank, trainable_parameters=rank * 50_000, parameter_bytes=rank * 200_000,
                gradient_bytes=rank * 200_000, optimizer_bytes=rank * 400_000,
                saved_rank=rank, saved_bytes=rank * 200_000,
            )
        )  # fmt: skip
    if runs is None:
        store.put(MachineRates(dtype="float32", flops_per_second=1e11, bytes_per_second=2e10))
        runs = [solo_run(rank, repeat) for repeat in (0, 1) for rank in sorted(ranks, reverse=repeat == 1)]
    store.put_all(runs)


def write_study(
    folder: Path,
    *,
    spec: StudySpec | None = None,
    floors: dict[int, float] | None = None,
    above: Mapping[str, float] | None = None,
    steps: int = 80,
    n_eval: int = 200,
    noise: float = 0.01,
    done: dict[str, int] | None = None,
    outcomes: dict[str, TrialOutcome] | None = None,
    model: str = "made-up/model",
    costs: bool = True,
    runs: Sequence[SoloRun] | None = None,
) -> Path:
    floors = floors or DEFAULT_FLOORS
    spec = spec or StudySpec(ranks=tuple(floors))
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(dump_spec(spec), encoding="utf-8")
    with StudyStore.create(folder / "study.db") as store:
        trials = plan_trials(spec)
        store.put(facts_of(steps, n_eval, model))
        store.put(ENVIRONMENT)
        store.put_all(trials)
        for number, trial in enumerate(trials):
            ran = (done or {}).get(trial.trial_id, steps)
            floor = (
                floors[trial.rank]
                + abs(np.log10(trial.learning_rate / 3e-4)) * 0.2
                + (above or {}).get(trial.trial_id, 0.0)
            )
            write_trial(
                store, trial.trial_id, floor=floor, steps=steps, done=ran, n_eval=n_eval, seed=number, noise=noise
            )
            state = TrialOutcome(
                trial_id=trial.trial_id, state="finished" if ran == steps else "running", steps=ran, message=None
            )
            store.put((outcomes or {}).get(trial.trial_id, state))
        if costs:
            write_costs(store, spec.ranks, runs)
    return folder


@pytest.fixture
def times_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often studies are loaded and summarised."""
    times: Counter[str] = Counter()

    def counted(module: ModuleType, name: str, what: str) -> None:
        function = getattr(module, name)

        def count(*args: object, **kwargs: object) -> object:
            times[what] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, count)

    counted(study_data, "read_study", "loaded")
    counted(analysis_summarize, "find_cautions", "summarised")
    return times


@pytest.fixture(scope="session")
def build_study() -> MakeStudy:
    """Write a study into a folder. Its held-out losses end near ``floors``; ``done`` maps trial ids to steps done."""
    return write_study


@pytest.fixture
def make_study(build_study: MakeStudy, tmp_path: Path) -> MakeStudy:
    """Write a study into a folder of this test's own."""
    return partial(build_study, tmp_path / "study")
