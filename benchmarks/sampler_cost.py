"""What measuring costs: the same work with and without the readings that a run takes, in turns that alternate.

    .venv/bin/python benchmarks/sampler_cost.py    # about three minutes; nothing else should compute meanwhile

``run`` is the sampler of a whole run, which reads once a second and writes into a store; ``alone`` is the memory meter
of a rank alone, which reads every 20 ms and asks the kernel for the peak of three phases a second.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from lorascope.measure.memory import MemoryMeter
from lorascope.run.sampling import sampling
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


def _work(products: int, phase: Callable[[], None], every: int) -> float:
    """Multiply matrices, with a phase now and then; return the seconds."""
    a = torch.rand(SIDE, SIDE)
    start = time.perf_counter()
    for number in range(products):
        if number % every == 0:
            phase()
        a = (a @ a).clamp_(0, 1)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    _work(20, lambda: None, 20)
    pace = 50 / _work(50, lambda: None, 50)
    products, every = int(options.seconds * pace), max(1, int(pace / PHASES_A_SECOND))
    ways = {"nothing": lambda: nullcontext(lambda: None), "run": _run, "alone": _alone}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(2 * options.rounds):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            with ways[name]() as phase:
                seconds[name].append(_work(products, phase, every))
    costs = {
        name: statistics.median(taken) / statistics.median(seconds["nothing"]) - 1 for name, taken in seconds.items()
    }
    for name, cost in costs.items():
        print(f"{name}: {statistics.median(seconds[name]):.3f} s, {cost:+.2%}")
    content = {"products": products, "side": SIDE, "seconds": seconds, "cost": costs}
    print(save("sampler-cost", "benchmarks/sampler_cost.py", content))


if __name__ == "__main__":
    main()
