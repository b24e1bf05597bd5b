"""How good the cost model is apart from the machine's moods: ``python cost_model_check.py``.

Predictions and steps take turns: what ``lorascope run`` would predict now, then a step of each rank alone, over and
over. So a machine that is slower for a while slows both, and medians over the rounds can be compared. Nothing is
corrected by a study. It takes about half an hour on two slow cores, with nothing else on them.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["LORASCOPE_DATA"] = tempfile.mkdtemp(prefix="lorascope-check-")  # no study is known

from lorascope.run.predict import predict_study
from lorascope.run.prepare import prepare_study
from lorascope.run.solo_run import SoloRunner, choose_batches
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from processes import prepare_model
from results import WIDTH, save

MODELS = ("smollm2-135m", "opt-350m")
RANKS = (8, 128, 256)


class _Quiet:
    """A Tracker that ignores everything."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def check(model: str, dataset: str, rounds: int) -> dict[str, Any]:
    """Return the seconds of each round, predicted and measured, by rank."""
    spec = StudySpec(
        model=prepare_model(model), dataset=dataset, ranks=RANKS, per_device_train_batch_size=8, max_length=256,
        eval_examples=2, max_steps=4,
    )  # fmt: skip
    study = prepare_study(spec, None, _Quiet())
    trials = {trial.rank: trial for trial in plan_trials(spec)}
    batches = choose_batches(study, spec.seeds[0])
    predicted: dict[int, list[float]] = {rank: [] for rank in RANKS}
    measured: dict[int, list[float]] = {rank: [] for rank in RANKS}
    for number in range(rounds):
        for record in predict_study(study, list(trials.values())):
            if record.what == "alone":
                predicted[record.rank].append(record.step_seconds)
        for rank in RANKS[:: -1 if number % 2 else 1]:
            solo = SoloRunner(study=study, trial=trials[rank], repeat=1, batches=batches, check_stop=lambda: None)
            measured[rank].append(solo.measure(1, last=False).step_seconds[-1])
    return {"model": model, "predicted": predicted, "measured": measured}


def _print(found: dict[str, Any]) -> None:
    print(found["model"])
    middle = {
        kind: {rank: statistics.median(found[kind][rank]) for rank in RANKS} for kind in ("predicted", "measured")
    }
    for rank in RANKS:
        ours, real = middle["predicted"][rank], middle["measured"][rank]
        ratio, true = (middle[kind][rank] / middle[kind][RANKS[0]] for kind in ("predicted", "measured"))
        print(
            f"  rank {rank:>3}: step {ours:.3f} s, measured {real:.3f} s, {ours / real - 1:+.1%}; times rank "
            f"{RANKS[0]}: {ratio:.3f}, measured {true:.3f}, {ratio - true:+.3f}"[:WIDTH],
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="builtin:python-stdlib")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rounds", type=int, default=16)
    options = parser.parse_args()
    found = []
    for model in options.models.split(","):
        found.append(check(model, options.dataset, options.rounds))
        _print(found[-1])
    content = {"dataset": Path(options.dataset).name, "rounds": options.rounds, "models": found}
    print(save("cost-model", "benchmarks/cost_model_check.py", content))


if __name__ == "__main__":
    main()
