"""How lorascope's time and memory grow with trials, rows and row lengths, and how soon it starts."""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console

from growth import Measured, growth_table, measured
from jobs import BUILTIN_ROWS, Job, shown_source
from processes import measure, prepare_model
from results import WIDTH, save
from starting import help_seconds, start_seconds

_SHORT = 106
"""Tokens of a short row: the mean of CodeAlpaca's with Alpaca's prompt."""
_STEPS = 4
"""The first is a warm-up and not counted."""
_STARTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the command line asks for."""

    cases: tuple[str, ...]
    dataset: str
    max_steps: int | None


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="trials,rows,lengths,start", help="default: %(default)s")
    parser.add_argument("--dataset", default=BUILTIN_ROWS, help="as in lorascope run (default: %(default)s)")
    parser.add_argument("--max-steps", type=int, help="fewer steps than the cases have, to try them out")
    given = parser.parse_args(arguments)
    unknown = set(given.cases.split(",")) - {*_GROUPS, "start"}
    if unknown:
        parser.error(f"--cases knows {', '.join(_GROUPS)} and start, not {', '.join(sorted(unknown))}")
    return Options(cases=tuple(given.cases.split(",")), dataset=given.dataset, max_steps=given.max_steps)


def _trials(options: Options, model: str) -> dict[str, Job]:
    one = Job(program="lorascope", ranks=(128,), model=model, dataset=options.dataset, max_steps=_STEPS)
    three = one.model_copy(update={"ranks": (8, 128, 256)})
    nine = three.model_copy(update={"learning_rates": (1e-4, 3e-4, 1e-3)})
    # nine fill a pass with as many tokens as it may have: from there on only adapters add to memory
    eighteen = nine.model_copy(update={"learning_rates": (1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 1e-3)})
    return {"1 trial": one, "3 trials": three, "9 trials": nine, "18 trials": eighteen}


def _rows(options: Options, model: str) -> dict[str, Job]:
    base = Job(program="lorascope", ranks=(128,), model=model, dataset=options.dataset)
    return {f"{rows} rows": base.model_copy(update={"rows": rows}) for rows in (64, 256, 1024)}


def _lengths(options: Options, model: str) -> dict[str, Job]:
    base = Job(
        program="lorascope",
        ranks=(128,),
        model=model,
        dataset=options.dataset,
        max_steps=_STEPS,
        bound_steps=_STEPS - 1,
    )
    lengths = {
        f"8 rows of {_SHORT} tokens": (_SHORT,) * 8,
        "8 rows of 512": (512,) * 8,
        "one of 1,024 among short ones": (1024, *(_SHORT,) * 7),
        "one of 2,048 among short ones": (2048, *(_SHORT,) * 7),
    }
    return {name: base.model_copy(update={"row_lengths": rows}) for name, rows in lengths.items()}


_GROUPS: dict[str, Callable[[Options, str], dict[str, Job]]] = {"trials": _trials, "rows": _rows, "lengths": _lengths}


def main() -> None:
    options, console = read_options(sys.argv[1:]), Console(width=WIDTH)
    model = prepare_model("smollm2-135m")
    starts = _starts(options, console) if "start" in options.cases else {}  # first: what fails soon costs least
    groups: dict[str, list[Measured]] = {}
    for group in options.cases:
        if group == "start":
            continue
        groups[group] = []
        for name, job in _GROUPS[group](options, model).items():
            fewer = {} if options.max_steps is None else {"max_steps": options.max_steps}
            groups[group].append(measured(name, measure(job.model_copy(update=fewer))))
            console.print(f"{group}: {name} done", highlight=False)
        console.print(growth_table(group, groups[group]))
    content: dict[str, object] = {name: [asdict(line) for line in lines] for name, lines in groups.items()} | starts
    command = " ".join(["python", "benchmarks/scaling.py", *map(shown_source, sys.argv[1:])])
    console.print(f"results: benchmarks/results/{save('scaling', command, content).name}")


def _starts(options: Options, console: Console) -> dict[str, object]:
    starts = [start_seconds(options.dataset) for _ in range(1 + _STARTS)][1:]
    helps = [help_seconds() for _ in range(1 + _STARTS)][1:]
    training = statistics.median(start.training_begins for start in starts)
    step = statistics.median(start.first_step_done for start in starts)
    console.print(f"second start: training begins after {training:.1f} s, its first step is done after {step:.1f} s")
    console.print(f"lorascope --help: {statistics.median(helps):.2f} s")
    return {"second_start_seconds": [asdict(start) for start in starts], "help_seconds": helps}


if __name__ == "__main__":
    main()
