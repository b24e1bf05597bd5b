"""The time left that a run shows, beside the truth: ``python time_left.py``. Nothing else should use the machine.

Five studies of SmolLM2-135M on rows of the standard library, from the start of a run to its report. The time left is
read at each tenth of it, as the terminal shows it: what the run said last, less the time since. The errors are printed
and saved. It takes about 15 minutes on two cores.

On a machine that others use as well, ``--processor-time`` counts the time of this program's processes instead, with one
thread: ``OMP_NUM_THREADS=1 python time_left.py --processor-time``.
"""

# ruff: noqa: E402 - the clock comes before the product
import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def processor_time() -> float:
    """Return the seconds that this process and those that it started have computed."""
    used = os.times()
    return time.process_time() + used.children_user + used.children_system


if "--processor-time" in sys.argv:  # before the product binds a clock
    time.monotonic = time.perf_counter = processor_time

from lorascope.analysis import summarize
from lorascope.records import AS_PLANNED, EvalRecord, LookRecord, ResolvedStudy, StepRecord, TrialOutcome, TrialRecord
from lorascope.report import write_report
from lorascope.run.study import run_study
from lorascope.run.trackers import SoloResult
from lorascope.spec.schema import StudySpec
from results import save

COMMON: Mapping[str, Any] = {
    "model": "builtin:smollm2-135m", "dataset": "builtin:python-stdlib", "split": "train[:240]", "ranks": (8, 64),
    "target_modules": ("q_proj", "k_proj", "v_proj"), "learning_rates": (2e-3,), "max_length": 96,
    "eval_examples": 12, "per_device_train_batch_size": 4, "max_steps": 10, "cost": "quick",
}  # fmt: skip
STUDIES: Mapping[str, Mapping[str, Any]] = {
    "no solo runs": {"cost": "off"},
    "one rate": {},
    "rates that exit early": {"ranks": (8,), "learning_rates": (2e-4, 1e-3, 2e-3, 4e-3), "max_grid_extensions": 1},
    "until decided": {"until_decided": True, "max_steps": 5, "truncation": False, "tolerance": 0.02},
    "long rows": {"max_length": 384, "per_device_train_batch_size": 2, "max_steps": 8, "eval_examples": 6},
}
TENTHS = range(1, 10)


@dataclass
class Listener:
    """A tracker that keeps what a run says of its progress, with the time."""

    told: list[tuple[float, float, float]] = field(default_factory=list)
    """Moment, share done and seconds left."""

    def phase(self, text: str) -> None: ...

    def progress(self, share_done: float, seconds_left: float) -> None:
        self.told.append((time.monotonic(), share_done, seconds_left))

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def begin(self, resolved: ResolvedStudy, trials: Sequence[TrialRecord], done: Sequence[StepRecord]) -> None: ...

    def solo_cost(self, result: SoloResult) -> None: ...

    def look(self, look: LookRecord) -> None: ...

    def step(self, records: Sequence[StepRecord]) -> None: ...

    def evaluation(self, record: EvalRecord) -> None: ...

    def outcome(self, outcome: TrialOutcome) -> None: ...

    def end(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--studies", default=",".join(STUDIES), help="names, separated by commas")
    arguments = parser.parse_args()
    found = []
    print(f"{'study':24}{'seconds':>8} " + "".join(f"{10 * tenth:>6} %" for tenth in TENTHS))
    for name in arguments.studies.split(","):
        found.append({"study": name, **measure(StudySpec.model_validate({**COMMON, **STUDIES[name]}))})
        cells = "".join("       -" if one is None else f"{one:>+8.0%}" for one in found[-1]["errors"])
        print(f"{name:24}{found[-1]['seconds']:>8.0f} {cells}", flush=True)
        print(f"    report {found[-1]['report_seconds']:.1f} s; {found[-1]['spent']}", file=sys.stderr, flush=True)
    print(save("time-left", shlex.join(["python", "benchmarks/time_left.py", *sys.argv[1:]]), {"studies": found}))


def measure(spec: StudySpec) -> dict[str, Any]:
    """Run a study, and compare the time left at each tenth with the truth; None where none was shown."""
    listener = Listener()
    with tempfile.TemporaryDirectory() as folder:
        study, began = Path(folder) / "study", time.monotonic()
        run_study(spec, study, trackers=[listener], command="benchmark")
        before_report = time.monotonic()
        write_report(study)
        ended = time.monotonic()
        summary = summarize(study)
        assert all(trial.outcome in AS_PLANNED for trial in summary.trials), summary.trials
        book = {one.name: one.spent_seconds for one in summary.time_book}
    seconds = ended - began
    return {
        "seconds": seconds,
        "errors": [relative_error(listener.told, began + tenth / 10 * seconds, ended) for tenth in TENTHS],
        "told": [(at - began, share, left) for at, share, left in listener.told],
        "report_seconds": ended - before_report,
        "spent": book,
    }


def relative_error(told: Sequence[tuple[float, float, float]], at: float, ended: float) -> float | None:
    """Return by what share of the truth the time left was wrong at a moment; None before any was told."""
    last = [(moment, left) for moment, _, left in told if moment <= at]
    if not last:
        return None
    moment, left = last[-1]
    return max(0.0, left - (at - moment)) / (ended - at) - 1


if __name__ == "__main__":
    main()
