"""Break real studies in every way a machine can, run them again, and compare with an undisturbed one, byte for byte.

    python tests/faults/run.py [--kills 200] [--full 50] [--damages 200] [--seed 0] [--json FILE]

A process is killed before or in the middle of the n-th thing it does to a file of the study (a write, a sync, a
rename), or at a moment of the clock; the disk is full from the n-th on, and stays so or has space again; bits of
checkpoints and stores are flipped, and parts of them cut off, zeroed or scrambled. Prints one line a kind for
docs/reliability.md. Exit code 1 where a study ended with other bytes, an unreadable store or a traceback.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from faults.children import CRASHED, DONE, FULL, KILL, TEAR, Ended, Plan, copy_study, in_child, preloaded

FAULTS = preloaded()

from lorascope.analysis import summarize
from lorascope.errors import InputError
from lorascope.run import retry
from lorascope.run.executors import group_recorder
from lorascope.spec.schema import StudySpec
from support.studies import Left, execute, read_study, save_model_folder, study_of

group_recorder._CHECKPOINT_SECONDS = 0.0  # after every step
group_recorder._CHECKPOINT_SHARE = float("inf")
retry._MAX_SECONDS = 3.0
retry._PAUSE_SECONDS = 0.1
UNDISTURBED = Plan()
DTYPES = ("float32", "bfloat16")


class Case:
    """One study, undisturbed, in one precision."""

    def __init__(self, root: Path, dtype: str) -> None:
        self.root, self.dtype = root, dtype
        model, rows = root / "model", root / "rows.json"
        if not model.exists():
            # in a child: Torch's threads do not survive a fork
            assert in_child(lambda: save_model_folder(model, "llama"), UNDISTURBED, model, FAULTS).code == DONE
            rows.write_text(
                json.dumps([{"prompt": f"add {n}", "completion": f": it is {n}" * (1 + n % 3)} for n in range(24)])
            )
        self.spec: StudySpec = study_of(
            str(model), str(rows), dtype=dtype, learning_rates=(1e-3, 1e-2, 1e-1), max_steps=5, eval_steps=2,
            eval_examples=3, max_grid_extensions=1, truncation=False,
        )  # fmt: skip
        self.folder = root / dtype
        ended = self.run(self.folder)
        assert ended.code == DONE, ended.message
        self.operations = ended.operations
        began = time.perf_counter()
        self.left = read_study(self.folder)
        ended = self.run(root / f"{dtype}-timed")
        assert ended.code == DONE, ended.message
        self.seconds = time.perf_counter() - began

    def run(self, folder: Path, plan: Plan = UNDISTURBED) -> Ended:
        return in_child(lambda: execute(self.spec, folder), plan, folder, FAULTS)

    def difference(self, folder: Path) -> str:
        """Name the first thing that is not as in the undisturbed study; nothing where all is."""
        left = read_study(folder)
        for part in ("outcomes", "steps", "evaluations", "adapters"):
            ours, theirs = getattr(left, part), getattr(self.left, part)
            for name in sorted({*ours, *theirs}):
                if repr(ours.get(name)) != repr(theirs.get(name)):
                    return f"other {part} of {name}: {_first(ours.get(name), theirs.get(name))}"
        return "" if verdict(folder) == verdict(self.folder) else "another verdict"


def _first(ours: object, theirs: object) -> str:
    """Show the first of two lists' items that differ, or the beginnings of what else differs."""
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return f"{len(ours)} of them, not {len(theirs)}"
        ours, theirs = next((a, b) for a, b in zip(ours, theirs, strict=True) if repr(a) != repr(b))
    return f"{ours!r:.300} | {theirs!r:.300}"


def verdict(folder: Path) -> str:
    summary = summarize(folder)
    return repr((summary.verdict, summary.recommendation, [rank.eval_loss for rank in summary.ranks]))


def readable(folder: Path) -> bool:
    """Say whether what was written can be read: all of it, or a clear refusal where nothing was yet."""
    if not (folder / "study.db").exists():
        return True
    try:
        summarize(folder)
    except InputError as error:
        return "damaged" not in str(error)
    return True


def kill(case: Case, folder: Path, chance: random.Random) -> str:
    """Kill a study up to three times, then let it end."""
    kinds = []
    for _ in range(chance.randint(1, 3)):
        if chance.random() < 0.25:
            plan = Plan(after_seconds=chance.uniform(0, case.seconds))
        else:
            plan = Plan(kind=chance.choice((KILL, TEAR)), at=chance.randint(1, case.operations))
        ended = case.run(folder, plan)
        kinds.append("killed" if ended.code is None else "ran to its end first")
        if ended.code not in (None, DONE):
            return f"FAILED: {ended.message}"
        if not readable(folder):
            return "FAILED: unreadable"
    ended = case.run(folder)
    if ended.code != DONE:
        return f"FAILED: {ended.message}"
    if difference := case.difference(folder):
        return f"FAILED: {difference}"
    return "the same bytes" if "killed" in kinds else "ended before it was killed"


def full(case: Case, folder: Path, chance: random.Random) -> str:
    """Fill the disk at some write; half of the time it has space again soon."""
    back = 0.5 if chance.random() < 0.5 else None
    ended = case.run(folder, Plan(kind=FULL, at=chance.randint(1, case.operations), back_after_seconds=back))
    if ended.code == CRASHED or ended.code is None:
        return f"FAILED: {ended.message}"
    if not readable(folder):
        return "FAILED: unreadable"
    first = "went on by itself" if ended.code == DONE else "one message, then run again"
    if ended.code != DONE:
        if "\n" in ended.message.strip() and "->" not in ended.message:
            return f"FAILED: {ended.message}"
        ended = case.run(folder)
    if ended.code != DONE:
        return f"FAILED: {ended.message}"
    difference = case.difference(folder)
    return f"FAILED: {difference}" if difference else f"the same bytes ({first})"


def damage(path: Path, chance: random.Random) -> str:
    """Flip a bit, or cut off, zero or scramble a part."""
    data = bytearray(path.read_bytes())
    kind = chance.choice(("flip", "flip", "flip", "cut", "zero", "scramble"))
    at = chance.randrange(len(data))
    part = slice(at, min(len(data), at + chance.choice((16, 512, 4096))))
    if kind == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "zero":
        data[part] = bytes(len(data[part]))
    else:
        data[part] = chance.randbytes(len(data[part]))
    path.write_bytes(data)
    return kind


def damaged(case: Case, folder: Path, chance: random.Random, pattern: str) -> str:
    """Damage a file of a study that was killed, read it, and run it again."""
    copy_study(case.root / f"{case.dtype}-killed", folder)
    files = sorted(path for path in folder.rglob(pattern) if path.stat().st_size)
    before = read_partly(folder)
    kind = damage(chance.choice(files), chance)
    after = read_partly(folder)
    if after is not None and not is_part(after, before):
        return f"FAILED: {kind}: wrong numbers are read"
    ended = case.run(folder)
    if ended.code == DONE:
        difference = case.difference(folder)
        return f"FAILED: {kind}: {difference}" if difference else "recovered"
    if ended.code in (CRASHED, None):
        return f"FAILED: {kind}: {ended.message}"
    return "refused"


def damaged_result(case: Case, folder: Path, chance: random.Random) -> str:
    """Damage the store of a finished study and read it."""
    copy_study(case.folder, folder)
    kind = damage(folder / "study.db", chance)
    try:
        difference = case.difference(folder)
    except InputError:
        return "refused"
    return f"FAILED: {kind}: {difference}" if difference else "unharmed"


def read_partly(folder: Path) -> Left | None:
    try:
        return read_study(folder)
    except InputError:
        return None


def is_part(after: Left, before: Left | None) -> bool:
    """Say whether all that is read was there before: a log that was cut gives an earlier state."""
    if before is None:
        return False
    return all(
        repr(rows) == repr(of[name][: len(rows)])
        for now, of in ((after.steps, before.steps), (after.evaluations, before.evaluations))
        for name, rows in now.items()
    )


def series(
    name: str, n: int, seed: int, cases: list[Case], one: Callable[[Case, Path, random.Random], str]
) -> Counter[str]:
    found: Counter[str] = Counter()
    began = time.perf_counter()
    for number in range(n):
        case = cases[number % len(cases)]
        folder = case.root / "work" / f"{name}-{number}"
        folder.parent.mkdir(exist_ok=True)
        try:
            outcome = one(case, folder, random.Random(f"{name} {seed} {number}"))
        except Exception as error:
            outcome = f"FAILED: {type(error).__name__}: {error}"
        found[outcome.partition("\n")[0] if outcome.startswith("FAILED") else outcome] += 1
        if outcome.startswith("FAILED"):
            print(f"{name} {number} ({case.dtype}): {outcome}\n  {folder}", file=sys.stderr)
    seconds = time.perf_counter() - began
    counts = "; ".join(f"{count} {outcome}" for outcome, count in sorted(found.items()))
    print(f"| {name} | {n} | {counts} | {seconds:.0f} |", flush=True)
    return found


def killed_study(case: Case) -> None:
    """Leave a study that was killed in the middle, with two checkpoints."""
    folder = case.root / f"{case.dtype}-killed"
    for at in range(case.operations // 2, case.operations, 7):
        shutil.rmtree(folder, ignore_errors=True)
        ended = case.run(folder, Plan(kind=KILL, at=at))
        if ended.code is None and len(list(folder.rglob("round-*.safetensors"))) >= 2:
            return
    raise AssertionError("no moment in which two checkpoints are there")


def all_series(root: Path, options: argparse.Namespace) -> Iterator[Counter[str]]:
    cases = [Case(root, dtype) for dtype in DTYPES]
    print(f"{cases[0].operations} operations on files, {cases[0].seconds:.1f} s, in an undisturbed study")
    print("| what was done | times | how it ended | s |\n| --- | --- | --- | --- |")
    yield series("killed", options.kills, options.seed, cases, kill)
    yield series("disk full", options.full, options.seed, cases, full)
    for case in cases:
        killed_study(case)

    def of(pattern: str) -> Callable[[Case, Path, random.Random], str]:
        return lambda case, folder, chance: damaged(case, folder, chance, pattern)

    half = options.damages // 2
    yield series("checkpoint damaged", options.damages, options.seed, cases, of("round-*.safetensors"))
    yield series("store of a killed study damaged", half, options.seed, cases, of("study.db*"))
    yield series("store of a finished study damaged", options.damages - half, options.seed, cases, damaged_result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full", type=int, default=50)
    parser.add_argument("--damages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lorascope-faults-") as name:
        found = list(all_series(Path(name), options))
    total = sum(found, Counter())
    if options.json:
        options.json.write_text(json.dumps(total), encoding="utf-8")
    sys.exit(any(outcome.startswith("FAILED") for outcome in total))


if __name__ == "__main__":
    main()
