"""lorascope beside what its users would run instead, in turn on the same rows."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from comparison import OURS, Standing, largest_difference, spread, standings
from jobs import BUILTIN_ROWS, PEERS, Job, ProgramName, Result, shown_source
from levels import LEVELS
from lorascope.text.numbers import format_seconds
from lorascope.units import format_bytes
from processes import measure, prepare_model
from results import WIDTH, save

_BY_MODEL: dict[str, tuple[int, tuple[ProgramName, ...]]] = {
    "smollm2-135m": (64, ("trainer", "trainer-bf16", "trl-packed", "trl")),
    "opt-350m": (24, ("trainer", "trainer-bf16")),
}
"""Rows and peers of each model where nothing else is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the command line asks for."""

    model: str
    dataset: str
    rows: int
    ranks: tuple[int, ...]
    peers: tuple[ProgramName, ...]
    repeats: int
    with_float32: bool
    level: str
    answers_only: bool


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(_BY_MODEL), default="smollm2-135m")
    parser.add_argument("--dataset", default=BUILTIN_ROWS, help="as in lorascope run (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="training rows, the first of the data set; one epoch is trained")
    parser.add_argument("--ranks", type=_ranks, default=(8, 128, 256), help="default: 8,128,256")
    parser.add_argument("--peers", type=_peers, help=f"some of {','.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; every second one runs backwards")
    parser.add_argument("--level", choices=LEVELS, default="native", help="instructions that every program may use")
    parser.add_argument("--with-float32", action="store_true", help="compare losses with the float32 engine's, too")
    parser.add_argument(
        "--answers-only", action="store_true", help="loss on answers alone, rows as in the preset opt-350m-codealpaca"
    )
    given = parser.parse_args(arguments)
    rows, peers = _BY_MODEL[given.model]
    return Options(
        model=given.model,
        dataset=given.dataset,
        rows=given.rows or rows,
        ranks=given.ranks,
        peers=given.peers or peers,
        repeats=given.repeats,
        with_float32=given.with_float32,
        level=given.level,
        answers_only=given.answers_only,
    )


def _ranks(text: str) -> tuple[int, ...]:
    return tuple(int(rank) for rank in text.split(","))


def _peers(text: str) -> tuple[ProgramName, ...]:
    chosen = tuple(peer for peer in PEERS if peer in text.split(","))
    if len(chosen) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"choose from {','.join(PEERS)}")
    return chosen


def jobs_of(options: Options, model: str, number: int) -> list[Job]:
    """List the processes of one round: lorascope with all ranks, and each peer with one, another in each round.

    A peer takes nearly the same time for every rank (but for the largest, a little more), so that three rounds tell
    its seconds for three ranks without training each of them three times.
    """
    ours = Job(
        program=OURS,
        ranks=options.ranks,
        model=model,
        dataset=options.dataset,
        rows=options.rows,
        answers_only=options.answers_only,
        bound_steps=3,
    )
    shared = ours.model_copy(update={"program": "lorascope-shared", "bound_steps": 0})
    rank = options.ranks[number % len(options.ranks)]
    theirs = [ours.model_copy(update={"program": p, "ranks": (rank,), "bound_steps": 0}) for p in options.peers]
    return [ours, shared, *theirs]


def main() -> None:
    options, console = read_options(sys.argv[1:]), Console(width=WIDTH)
    os.environ.update(LEVELS[options.level])
    model = prepare_model(options.model)
    rounds: list[list[Result]] = []
    for number in range(options.repeats):
        jobs = jobs_of(options, model, number)
        order = jobs if number % 2 == 0 else jobs[::-1]
        measured = {job: _measured(job, f"round {number + 1}/{options.repeats}", console) for job in order}
        rounds.append([measured[job] for job in jobs])
        if len({result.data_hash for result in rounds[-1]}) > 1:
            raise SystemExit("the programs did not see the same rows")
        _save(options, rounds, difference=None)
    difference = None
    if options.with_float32:
        job = jobs_of(options, model, 0)[0].model_copy(update={"program": "lorascope-float32", "bound_steps": 0})
        float32 = _measured(job, "float32", console)
        difference = largest_difference(rounds[0][0], float32)
    path = _save(options, rounds, difference)
    console.print(_table(standings(rounds), options))
    for line in _notes(rounds, difference):
        console.print(line)
    console.print(f"results: benchmarks/results/{path.name}")


def _measured(job: Job, where: str, console: Console) -> Result:
    result = measure(job)
    ranks = ", ".join(map(str, job.ranks))
    seconds, peak = format_seconds(result.train_seconds), format_bytes(result.peak_rss_bytes)
    console.print(f"{where}: {job.program} r = {ranks}: {seconds}, peak {peak}", highlight=False)
    return result


def _save(options: Options, rounds: Sequence[Sequence[Result]], difference: float | None) -> Path:
    content = {
        "what": asdict(options) | {"dataset": shown_source(options.dataset)},
        "standings": [asdict(standing) for standing in standings(rounds)],
        "share_of_bound": [share.share for one in rounds for share in one[0].shares],
        "largest_loss_difference_to_float32": difference,
        "rounds": [[result.model_dump() for result in one] for one in rounds],
    }
    command = shlex.join(["python", "benchmarks/peers.py", *map(shown_source, sys.argv[1:])])
    parts = ["peers", options.model]
    parts += [options.level] if options.level != "native" else []
    parts += ["answers-only"] if options.answers_only else []
    return save("-".join(parts), command, content)


def _table(lines: Sequence[Standing], options: Options) -> Table:
    ranks = ", ".join(map(str, options.ranks))
    title = f"{options.model}, {options.rows} rows of {shown_source(options.dataset)}, ranks {ranks}"
    table = Table(title=f"{title}: median (range) of {options.repeats}")
    for head in ("program", "seconds, all ranks", "times lorascope", "tokens/s", "peak memory", "train loss"):
        table.add_column(head, justify="left" if head == "program" else "right")
    for line in lines:
        table.add_row(
            line.program,
            f"{line.train_seconds.median:.1f} ({line.train_seconds.low:.1f}-{line.train_seconds.high:.1f})",
            f"{line.ratio.median:.2f} ({line.ratio.low:.2f}-{line.ratio.high:.2f})",
            f"{line.tokens_per_second.median:,.0f}",
            f"{format_bytes(line.peak_rss_bytes.low)} - {format_bytes(line.peak_rss_bytes.high)}",
            ", ".join(f"{loss:.3f}" for loss in line.train_loss.values()),
        )
    return table


def _notes(rounds: Sequence[Sequence[Result]], difference: float | None) -> list[str]:
    shares = [share for one in rounds for share in one[0].shares]
    part, rate = spread([s.share for s in shares]), spread([s.flops / s.bound_seconds / 1e9 for s in shares])
    without = spread([s.product_seconds / s.step_seconds for s in shares])
    in_training = spread([s.bound_seconds / s.training_seconds for s in shares])
    notes = [
        f"matrix products alone need {part.median:.0%} ({part.low:.0%}-{part.high:.0%}) of a lorascope step's time "
        f"({in_training.median:.0%} of the same step in the training), at {rate.median:,.0f} GFLOP/s; "
        f"{without.median:.0%} without attention's"
    ]
    if difference is not None:
        notes.append(f"largest difference of a step's loss to the float32 engine's: {difference:.2%}")
    return notes


if __name__ == "__main__":
    main()
