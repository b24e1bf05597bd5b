"""What measuring costs: the same work with and without the readings that a run takes, in short turns that alternate.

    .venv/bin/python benchmarks/sampler_cost.py    # about three minutes; nothing else should compute meanwhile

``run`` is the sampler of a whole run, which reads once a second and writes into a store; ``alone`` is the memory meter
of a rank alone, which reads every 20 ms and asks the kernel for the peak of three phases a second. Two costs are told:
what the turns with readings took longer than their neighbours without (the median, with a bootstrap interval), and the
processor time of the readings themselves, which a machine that is slower now and then does not touch.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from lorascope.measure.memory import MemoryMeter
from lorascope.run.sample_buffer import sampling
from lorascope.store import StudyStore
from results import save

CPU = torch.device("cpu")
SIDE = 512
PHASES_A_SECOND = 3


@contextmanager
def _run() -> Iterator[Callable[[], None]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        StudyStore.create(Path(folder) / "study.db") as store,
        sampling(store, CPU),
    ):
        yield lambda: None


@contextmanager
def _alone() -> Iterator[Callable[[], None]]:
    with MemoryMeter(CPU) as meter:
        yield lambda: meter.begin("forward")


def _work(products: int, phase: Callable[[], None], every: int) -> tuple[float, float]:
    """Multiply matrices, with a phase now and then; return the seconds, and those of the phases."""
    a, inside = torch.rand(SIDE, SIDE), 0.0
    start = time.perf_counter()
    for number in range(products):
        if number % every == 0:
            began = time.perf_counter()
            phase()
            inside += time.perf_counter() - began
        a = (a @ a).clamp_(0, 1)
    return time.perf_counter() - start, inside


def _thread_seconds() -> float:
    """Return the processor time of the threads that read."""
    clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threading.enumerate() if thread.ident
              and thread.name.startswith("lorascope-")]  # fmt: skip
    return sum(map(time.clock_gettime, clocks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    _work(20, lambda: None, 20)
    pace = 200 / _work(200, lambda: None, 200)[0]
    products, every = int(options.seconds * pace), max(1, int(pace / PHASES_A_SECOND))
    costs = {}
    for name, way in {"run": _run, "alone": _alone}.items():
        ratios, own = [], []
        for turn in range(options.pairs):
            taken = {}
            for measured in (False, True) if turn % 2 else (True, False):
                with way() if measured else nullcontext(lambda: None) as phase:
                    before = _thread_seconds()
                    taken[measured], inside = _work(products, phase, every)
                    if measured:
                        own.append((_thread_seconds() - before + inside) / taken[True])
            ratios.append(taken[True] / taken[False] - 1)
        low, high = _interval(ratios)
        costs[name] = {"longer": statistics.median(ratios), "ci95": [low, high], "processor": statistics.fmean(own)}
        cost = f"{costs[name]['longer']:+.2%} longer ({low:+.2%} to {high:+.2%})"
        print(f"{name}: {cost}, {costs[name]['processor']:.2%} of the time in the readings")
    content = {"products": products, "side": SIDE, "pairs": options.pairs, "cost": costs}
    print(save("sampler-cost", "benchmarks/sampler_cost.py", content))


def _interval(values: list[float]) -> tuple[float, float]:
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
