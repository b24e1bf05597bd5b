"""What a report takes: time, memory and size for a small study and for a store of a million steps.

    python benchmarks/report_size.py [--trials 10] [--steps 100000]

Each report is made by `lorascope report` in a process of its own, three times; the fastest counts, since anything else
that runs only adds. The store is made up: losses fall exponentially with noise of a batch.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorascope.message import Message
from lorascope.records import (
    AdapterRecord,
    EvalRecord,
    ResolvedStudy,
    SoloRun,
    StepRecord,
    SystemSample,
    TrialOutcome,
    TrialRecord,
)
from lorascope.search.trials import plan_trials
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore
from results import save

ROUNDS = 3
EVALUATIONS = 10
EVAL_ROWS = 200
SAMPLES = 3_600
_BATCH = 20_000
_SIZES = {"nine trials of 2,000 steps": (9, 2_000), "a million steps": (10, 100_000)}
_CHILD = """
import json, re, sys, time
sys.argv = ["lorascope", "report", sys.argv[1]]
from lorascope.cli import main
try:
    main()
finally:
    # the kernel's mark of this memory alone: getrusage starts at what the parent held
    peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    print(json.dumps({"peak": peak, "cpu": time.process_time()}), file=sys.stderr)
"""


def spec_of(trials: int) -> StudySpec:
    """A grid with that many trials: up to three ranks at three learning rates, or one rate and as many ranks."""
    if trials == 9:
        return StudySpec(ranks=(8, 64, 256), learning_rates=(1e-4, 3e-4, 1e-3))
    return StudySpec(ranks=tuple(4 * 2**place for place in range(trials // 2)), seeds=(0, 1), learning_rates=(3e-4,))


def write_store(folder: Path, trials: int, steps: int) -> int:
    """Write a made-up study and return the rows in it."""
    spec = spec_of(trials)
    planned = plan_trials(spec)
    (folder / "study.yaml").write_text(dump_spec(spec), encoding="utf-8")
    with StudyStore.create(folder / "study.db") as store:
        store.put(_facts(steps))
        store.put_all(planned)
        for number, trial in enumerate(planned):
            _write_trial(store, trial, steps, np.random.default_rng(number))
        for rank in spec.ranks:
            _write_cost(store, rank)
        store.put_all(
            [
                SystemSample(
                    seconds=float(second), rss_bytes=10**9 + second * 1000, cpu_percent=190.0,
                    device_allocated_bytes=None, memory_traffic_bytes=None,
                )
                for second in range(SAMPLES)
            ]
        )  # fmt: skip
    return len(planned) * (steps + EVALUATIONS) + SAMPLES


def _facts(steps: int) -> ResolvedStudy:
    return ResolvedStudy(
        model="made-up/model", dataset="made-up/rows", device="cpu", dtype="bfloat16", dtype_reason=Message("asked"),
        packing=True, packing_reason=Message("asked"), train_examples=8 * steps, eval_examples=EVAL_ROWS,
        train_tokens=2_000 * steps, train_target_tokens=1_500 * steps, eval_target_tokens=20 * EVAL_ROWS,
        total_steps=steps, base_parameters=134_515_008, target_modules=("layers.0.q_proj",), data_hash="d",
        model_hash="m", data_notes=(), kernels=True, kernels_reason=Message("asked"), eval_tokens=26 * EVAL_ROWS,
    )  # fmt: skip


def _write_trial(store: StudyStore, trial: TrialRecord, steps: int, rng: np.random.Generator) -> None:
    floor = 1.2 + 0.3 / trial.rank + abs(np.log10(trial.learning_rate / 3e-4)) * 0.1
    falling = floor + (2.4 - floor) * np.exp(-6 * np.arange(steps) / steps)
    nats = 1_500 * (falling + rng.normal(0, 0.08, steps))
    for begin in range(0, steps, _BATCH):
        store.put_all(
            [
                StepRecord(
                    trial_id=trial.trial_id, step=place + 1, nats=float(nats[place]), target_tokens=1_500, tokens=2_000,
                    learning_rate=trial.learning_rate, grad_norm=0.5, seconds=0.3, warmup=place < 2, group=0,
                )
                for place in range(begin, min(begin + _BATCH, steps))
            ]
        )  # fmt: skip
    rows = np.random.default_rng(7).normal(0, 0.5, EVAL_ROWS)
    for number in range(EVALUATIONS + 1):
        loss = float(falling[max(0, number * steps // EVALUATIONS - 1)])
        store.put_all(
            [
                EvalRecord(
                    trial_id=trial.trial_id, step=number * steps // EVALUATIONS,
                    example_nats=tuple((20 * (loss + rows + rng.normal(0, 0.01, EVAL_ROWS))).tolist()),
                    example_target_tokens=(20,) * EVAL_ROWS, seconds=1.0,
                )
            ]
        )  # fmt: skip
    store.put(TrialOutcome(trial_id=trial.trial_id, state="finished", steps=steps, message=None))


def _write_cost(store: StudyStore, rank: int) -> None:
    size = 200_000 * rank
    store.put(
        AdapterRecord(
            rank=rank, trainable_parameters=50_000 * rank, parameter_bytes=size, gradient_bytes=size,
            optimizer_bytes=2 * size, saved_rank=rank, saved_bytes=size,
        )
    )  # fmt: skip
    seconds = 0.3 + rank / 4_000
    base, peak = 10**9, 2 * 10**9 + 5 * size
    for repeat in (0, 1):
        last = repeat == 1
        store.put(
            SoloRun(
                rank=rank, repeat=repeat, step_seconds=(1.0, seconds), warmup_steps=1, step_tokens=(2_000,) * 2,
                cpu_seconds=seconds, base_bytes=base, forward_peak_bytes=peak, backward_peak_bytes=peak,
                optimizer_peak_bytes=peak, evaluation_peak_bytes=peak if last else None, held_bytes=base + 4 * size,
                after_bytes=base, reserved_peak_bytes=None, memory_method="kernel",
                samples_bytes=tuple(base + 4 * size + 10**6 * (place % 97) for place in range(1_500)),
                warmup_samples=500, heaviest_tokens=2_500 if last else None, activation_bytes=10**8 if last else None,
                product_flops=None if last else 10**10, product_bytes=None if last else 10**9,
            )
        )  # fmt: skip


def measure_report(folder: Path) -> dict[str, object]:
    """Make the report three times and measure the fastest."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", _CHILD, str(folder)], capture_output=True, text=True, check=True)
        used = json.loads(done.stderr.splitlines()[-1])
        rounds.append({"seconds": time.perf_counter() - begun, "peak_bytes": used["peak"], "cpu_seconds": used["cpu"]})
    best = min(rounds, key=lambda one: one["seconds"])
    return {
        **best,
        "median_seconds": statistics.median(one["seconds"] for one in rounds),
        "html_bytes": (folder / "report.html").stat().st_size,
        "md_bytes": (folder / "report.md").stat().st_size,
        "charts_bytes": sum(path.stat().st_size for path in (folder / "charts").glob("*.png")),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0)
    given = parser.parse_args(arguments)
    sizes = {"as asked": (given.trials, given.steps)} if given.trials else _SIZES
    found = {}
    for name, (trials, steps) in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = write_store(Path(folder), trials, steps)
            found[name] = {"trials": trials, "steps": steps, "rows": rows, **measure_report(Path(folder))}
        print(name, json.dumps(found[name], indent=1))
    if not given.trials:
        print(save("report-size", "benchmarks/report_size.py", {"reports": found}))


if __name__ == "__main__":
    main()
