"""Train a tiny model for very long, and see that nothing grows: memory, open files, threads.

    python tests/faults/soak.py [--steps 20000]

With an evaluation every 100 steps and a checkpoint after every 20. Prints a reading at each tenth of the run; exit code
1 where memory in the last half grew by more than 2 %, or files or threads by any.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

import psutil
import torch

from lorascope.records import StepRecord
from lorascope.run.executors import group_recorder
from lorascope.run.study import run_study
from support.studies import Watcher, save_model_folder, study_of

torch.set_num_threads(1)


class Reader(Watcher):
    """Reads the process at each tenth of the run."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.every, self.process = max(1, steps // 10), psutil.Process()
        self.readings: list[tuple[int, int, int, int]] = []

    def step(self, records: Sequence[StepRecord]) -> None:
        group_recorder._CHECKPOINT_SECONDS = 0.0 if records[0].step % 20 == 0 else 1e9
        if records[0].step % self.every == 0:
            memory = self.process.memory_info().rss
            reading = (records[0].step, memory, self.process.num_fds(), self.process.num_threads())
            self.readings.append(reading)
            print(f"| {reading[0]} | {memory / 1e6:.1f} | {reading[2]} | {reading[3]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    steps = parser.parse_args().steps
    group_recorder._CHECKPOINT_SHARE = float("inf")
    with tempfile.TemporaryDirectory(prefix="lorascope-soak-") as name:
        root = Path(name)
        save_model_folder(root / "model", "llama")
        rows = [{"prompt": f"add {n}", "completion": f": it is {n}" * (1 + n % 3)} for n in range(40)]
        (root / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        spec = study_of(str(root / "model"), str(root / "rows.json"), max_steps=steps, eval_steps=100, truncation=False)
        reader = Reader(steps)
        print("| step | memory, MB | open files | threads |\n| --- | --- | --- | --- |")
        run_study(spec, root / "study", trackers=[reader], command="soak")
    half = reader.readings[len(reader.readings) // 2 :]
    (_, first, files, threads), (_, last, files_now, threads_now) = half[0], half[-1]
    print(f"memory grew by {100 * (last / first - 1):.2f} % over the last half")
    sys.exit(last > 1.02 * first or files_now > files or threads_now > threads)


if __name__ == "__main__":
    main()
