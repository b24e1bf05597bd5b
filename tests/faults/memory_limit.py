"""Carry a real study out under limits on the address space of its process, and print what became of it as JSON.

python tests/faults/memory_limit.py FOLDER
"""

from typing import cast
import ctypes
import json
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

import psutil
import torch

from faults.children import DONE, Plan, in_child
from lorascope.run.study import run_study
from lorascope.spec.schema import StudySpec
from support.studies import Watcher, read_study, save_model_folder, study_of

MB = 2**20
TIGHT = tuple(n * MB for n in (320, 240, 180, 135, 100, 75, 56))
HOPELESS = tuple(n * MB for n in (1, 0, -16, -64, -256))
"""Bytes that training may allocate beyond those of the process; below 0, it has to give some back first."""


class Limiter(Watcher):
    """Sets the limit when training begins, and remembers what is said of memory."""

    def __init__(self, more_bytes: int | None, said: Path) -> None:
        super().__init__()
        self.more_bytes, self.said = more_bytes, said

    def phase(self, text: str) -> None:
        if text == "training" and self.more_bytes is not None:
            # what the heap has free is taken, so that training has to ask for all it needs
            self.taken = [torch.empty(MB, dtype=torch.uint8) for _ in range(512)]
            limit = psutil.Process().memory_info().vms + self.more_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def note(self, text: str) -> None:
        with self.said.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


class Uncounted:
    """In place of the library that makes things go wrong: nothing does."""

    def fault_plan(self, *arguments: object) -> None: ...

    def fault_count(self) -> int:
        return 0


NO_FAULTS = cast("ctypes.CDLL", Uncounted())


def execute(spec: StudySpec, folder: Path, more_bytes: int | None) -> dict[str, object]:
    said = folder.with_suffix(".said")
    watcher = Limiter(more_bytes, said)
    ended = in_child(
        lambda: run_study(spec, folder, trackers=[watcher], command="lorascope run"), Plan(), folder, NO_FAULTS
    )
    if ended.code != DONE:
        raise SystemExit(f"{folder.name}: {ended.code}: {ended.message}")
    left = read_study(folder)
    return {
        "lowered": said.exists() and "memory ran out" in said.read_text(encoding="utf-8"),
        "states": sorted({outcome.state for outcome in left.outcomes.values()}),
        "nats": [record.nats for records in left.steps.values() for record in records],
    }


def main() -> None:
    root = Path(sys.argv[1])
    model = root / "model"
    # in a child: Torch's threads do not survive a fork
    ended = in_child(lambda: save_model_folder(model, "llama", intermediate_size=4096), Plan(), model, NO_FAULTS)
    assert ended.code == DONE, ended.message
    rows = [{"prompt": f"add {n}", "completion": " and so on" * 300} for n in range(24)]
    (root / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    spec = study_of(
        str(root / "model"), str(root / "rows.json"), per_device_train_batch_size=8, tokens_per_pass=3072, max_steps=2,
        max_length=300, lora_dropout=0.1, truncation=False,
    )  # fmt: skip

    def first(limits: Sequence[int], wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """Lower the limit until it shows."""
        for limit in limits:
            found = execute(spec, root / f"{limit // MB}", limit)
            if wanted(found):
                break
        return found | {"megabytes": limit // MB}

    print(
        json.dumps(
            {
                "enough": execute(spec, root / "enough", None),
                "tight": first(TIGHT, lambda found: bool(found["lowered"])),
                "hopeless": first(HOPELESS, lambda found: "oom" in str(found["states"])),
            }
        )
    )


if __name__ == "__main__":
    main()
