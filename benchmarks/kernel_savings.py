"""What each compiled kernel saves of a training step: ``python kernel_savings.py --level avx2``. Nothing else may run.

One step of three ranks is repeated with and without each kernel in turns; without it, Torch's operations or the model's
own code compute the same. The least of each counts.
"""

import argparse
import os
import shlex
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from jobs import BUILTIN_ROWS, Job, shown_source, study_of
from levels import LEVELS
from processes import prepare_model
from results import WIDTH, save

if TYPE_CHECKING:
    from lorascope.modeling.backends.protocol import Backend

LAYER, NORM, GATED, ATTENTION, LINEAR = "_Layer", "_Norm", "_GatedLayer", "_Attention", "FrozenForward"
"""Classes whose instances take the place of a module's ``forward``."""
KERNELS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "residual stream in float32": (frozenset(), frozenset({LAYER})),
    "norms": (frozenset({LAYER}), frozenset({NORM})),
    "gated feed-forward layers": (frozenset({LAYER}), frozenset({GATED})),
    "rotary angles inside attention": (frozenset({LAYER}), frozenset({ATTENTION})),
    "attention": (frozenset({LAYER, ATTENTION}), frozenset({"attend"})),
    "other frozen products": (frozenset(), frozenset({LINEAR})),
    "products of adapted layers": (frozenset(), frozenset({"multi_lora"})),
    "dropout": (frozenset({"multi_lora"}), frozenset({"dropout_rows"})),
    "output head and its loss": (frozenset(), frozenset({"head_loss"})),
}
"""What is off in both measurements, as it depends on the kernel, and what is off in one of them besides."""
_OPERATIONS = frozenset({"attend", "multi_lora", "dropout_rows", "head_loss"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", choices=LEVELS, default="native", help="instructions that may be used")
    parser.add_argument("--dataset", default=BUILTIN_ROWS, help="as in lorascope run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="default: %(default)s")
    given = parser.parse_args()
    os.environ.update(LEVELS[given.level])  # before Torch is loaded
    ranks = (8, 128, 256)
    job = Job(
        program="lorascope",
        ranks=ranks,
        model=prepare_model("smollm2-135m"),
        dataset=given.dataset,
        rows=8,
        max_steps=1,
    )
    seconds = _measured(job, given.rounds)
    for name, (with_it, without) in seconds.items():
        saved = 1 - with_it / without
        print(f"{name:32} {with_it:8.3f} s with, {without:8.3f} s without: {saved:6.1%}"[:WIDTH])
    content = {
        "what": {"level": given.level, "dataset": shown_source(given.dataset), "ranks": ranks, "rounds": given.rounds},
        "seconds": {name: dict(zip(("with", "without"), pair, strict=True)) for name, pair in seconds.items()},
    }
    command = shlex.join(["python", "benchmarks/kernel_savings.py", "--level", given.level])
    print(save(f"kernel-savings-{given.level}", command, content))


def _measured(job: Job, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the least seconds of a step with and without each kernel."""
    from engine_run import KeptSteps, joint_group, repeat_step  # noqa: PLC0415 - Torch reads the level when it is loaded
    from lorascope.measure.clock import StepClock  # noqa: PLC0415
    from lorascope.measure.memory import retain_freed_memory  # noqa: PLC0415
    from lorascope.run.prepare import prepare_study  # noqa: PLC0415

    study = prepare_study(study_of(job), None, KeptSteps())
    group = joint_group(study, KeptSteps(), StepClock(study.device))
    patched = {module: module.forward for module in group.frozen.model.modules() if "forward" in vars(module)}
    group.frozen.attach([trial.adapter for trial in group.trials])

    def seconds(off: frozenset[str]) -> float:
        for module, forward in patched.items():
            vars(module).pop("forward", None)
            if type(forward).__name__ not in off:
                module.forward = forward
        frozen = replace(group.frozen, backend=_without(group.frozen.backend, off))
        begin = time.perf_counter()
        repeat_step(group, 0, frozen)
        return time.perf_counter() - begin

    with retain_freed_memory(study.device):
        seconds(frozenset())  # a warm-up
        return {
            name: _in_turns(partial(seconds, base), partial(seconds, base | off), rounds)
            for name, (base, off) in KERNELS.items()
        }


def _without(backend: "Backend", off: frozenset[str]) -> "Backend":
    """Return a backend with some of its operations made by Torch."""
    from lorascope.modeling.backends.torch.backend import TORCH  # noqa: PLC0415

    mixed = copy(backend)
    for name in off & _OPERATIONS:
        setattr(mixed, name, getattr(TORCH, name))
    return mixed


def _in_turns(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Return the least of each of two measurements, taken in turns; every second round runs backwards."""
    pairs = [(first(), second()) if turn % 2 == 0 else (second(), first())[::-1] for turn in range(rounds)]
    return min(one for one, _ in pairs), min(other for _, other in pairs)


if __name__ == "__main__":
    main()
