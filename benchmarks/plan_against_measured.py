"""Predicted beside measured on this machine: ``python plan_against_measured.py``. Nothing else may use the machine.

Two models, SmolLM2-135M and one of OPT-350m's shape with random weights, each studied three times by ``lorascope run``:
with no study known, and with the other model's study or its own to correct predictions by. What the summaries say of
predictions is printed and saved. It takes about ten minutes on two cores.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from processes import prepare_model
from results import WIDTH, save

MODELS = ("smollm2-135m", "opt-350m")
RANKS = "8,128,256"
MEASURED = ("--cost", "full")
"""How long each rank is measured alone."""
STUDY = (
    "--max-steps", "4", "--per-device-train-batch-size", "8", "--max-length", "256", "--eval-examples", "2",
    "--eval-steps", "4", "--learning-rates", "3e-4", "--forgetting-text", "none", "--no-truncation", "--json",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="builtin:python-stdlib")
    parser.add_argument("--models", default=",".join(MODELS))
    arguments = parser.parse_args()
    models = {name: prepare_model(name) for name in arguments.models.split(",")}
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for knows in ("nothing", "the other model", "itself"):
            if knows == "the other model" and len(models) == 1:
                continue
            for name, model in models.items():
                data = Path(folder) / (name if knows != "the other model" else _other(name, list(models)))
                runs.append({"model": name, "corrected_by": knows, "predicted": _study(model, arguments.dataset, data)})
                _print(runs[-1])
    command = shlex.join(["python", "benchmarks/plan_against_measured.py", *sys.argv[1:]])
    print(save("plan", command, {"dataset": Path(arguments.dataset).name, "ranks": RANKS, "runs": runs}))


def _other(name: str, names: list[str]) -> str:
    return next((other for other in names if other != name), name)


def _study(model: str, dataset: str, data: Path) -> dict[str, Any]:
    """Run a study that knows what ``data`` holds, and return what its summary says of predictions.

    A copy of ``data`` is given where it exists, so that only a study that knew nothing teaches.
    """
    first = not data.exists()
    with tempfile.TemporaryDirectory() as folder:
        known = data if first else Path(folder) / "data"
        if not first:
            known.mkdir()
            (known / "calibration.json").write_bytes((data / "calibration.json").read_bytes())
        command = ["run", "--model", model, "--dataset", dataset, "--ranks", RANKS, *STUDY, *MEASURED]
        done = subprocess.run(
            [sys.executable, "-m", "lorascope", *command, "--out", str(Path(folder) / "study")],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"LORASCOPE_DATA": str(known)},
        )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    predicted: dict[str, Any] = json.loads(done.stdout)["predicted"]
    return predicted


def _print(run: dict[str, Any]) -> None:
    predicted = run["predicted"]
    print(f"{run['model']}, corrected by {run['corrected_by']} (factor {predicted['factor']:.2f})"[:WIDTH])
    for part in [*predicted["ranks"], predicted["joint"]]:
        name = "joint" if part["rank"] is None else f"rank {part['rank']}"
        time, memory = part["step_seconds"], part["peak_memory_bytes"]
        line = f"  {name:>9}: step {time['predicted']:.3f} s, measured {time['measured']:.3f} s, {time['error']:+.1%}"
        if memory["measured"]:
            line += f"; peak {memory['predicted'] / 1e6:.0f} MB, measured {memory['measured'] / 1e6:.0f} MB, "
            line += f"{memory['error']:+.1%}"
        print(line[:WIDTH])
    print(f"  ratios of ranks: off by {predicted['ratio_error']:+.3f} at most"[:WIDTH], flush=True)


if __name__ == "__main__":
    main()
