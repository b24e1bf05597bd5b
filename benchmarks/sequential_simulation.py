"""How often a sequential study ends with the right verdict, and what it costs beside a fixed design.

    sequential_simulation.py                     # every scenario, 1,000 studies each, some hours
    sequential_simulation.py --studies 200 --scenarios effect
    sequential_simulation.py --table             # the table of what was simulated so far

The studies are those of verdict_simulation.py. A cost is counted in held-out rows through one adapter: training is
taken to cost as much as 3,000 of them, about one epoch over 1,000 rows. Nothing is timed.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from lorascope.analysis.summarize import summarize_data
from lorascope.analysis.summary import StudySummary
from lorascope.analysis.verdict.next_look import Prices, next_look
from lorascope.records import EvalRecord, FurtherEvalRecord, LookRecord
from lorascope.search.sequential import FIRST_SEEDS, MOST_SEEDS, goes_on
from made_up_studies import MadeUp, Truth, studies
from verdict_simulation import SHOWN, read_arguments, truth_of

RESULT = Path(__file__).parent / "results" / "sequential-simulation.json"
HELD = 256
MOST_ROWS = 1024
TRAINING_ROWS = 3000
"""Rows through one adapter that cost as much as one training."""
PRICES = Prices(row=1.0, trial=TRAINING_ROWS + HELD, token_seconds=1.0)
FIXED = ((3, 256), (3, 1024), (4, 1024), (5, 1024), (6, 1024), (7, 1024), (8, 1024))
"""Fixed designs beside it: seeds, held-out rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Shares over the studies of one scenario."""

    scenario: str
    studies: int
    named: float
    """Studies that end with the right verdict: the smallest rank that is truly within the tolerance."""
    wrong: float
    """Studies that name another rank."""
    false_claim: float
    """Studies that show, at any look, something that is not so."""
    covered: float
    """Intervals of a rank's excess that hold its true difference from the rank with the lowest estimate."""
    looks: float
    seeds: float
    """Of the ranks in question at the last look."""
    rows: float
    cost: float
    """Mean cost, as a share of that of eight seeds and 1,024 rows."""
    fixed_named: dict[str, float]
    """By fixed design, such as 3x256: studies that name the right rank."""
    fixed_cost: dict[str, float]


def scenarios() -> dict[str, Truth]:
    """Name every scenario."""
    found = {f"effect-{effect:g}": truth_of(effect, MOST_SEEDS, MOST_ROWS) for effect in (0, 0.002, 0.01, 0.02, 0.05)}
    plain = truth_of(0.0, MOST_SEEDS, MOST_ROWS)
    changes: dict[str, dict[str, Any]] = {
        "tolerance-just-missed": {"floors": {8: 1.0051, 64: 1.0, 256: 1.0}},
        "two-ranks-just-missed": {"floors": {8: 1.0051, 64: 1.0}},
        "ladder": {"floors": {4: 1.0153, 8: 1.0102, 16: 1.0051, 64: 1.0}},
        "much-seed-noise": {"seed_of_rank": 0.006},
        "seed-noise-by-size": {"seed_by_size": 0.002},
        "very-heavy-tails": {"tail_degrees": 2.5},
        "two-ranks": {"floors": {8: 1.0, 64: 1.0}},
        "six-ranks": {"floors": dict.fromkeys((4, 8, 16, 32, 64, 128), 1.0)},
    }
    return found | {name: replace(plain, **change) for name, change in changes.items()}


def sequential(study: MadeUp) -> tuple[StudySummary, tuple[LookRecord, ...]]:
    """Take looks until the study ends; all its records are there, and each look takes its share of them."""
    data = study.data
    looks: list[LookRecord] = []
    while goes_on(looks):
        looks.append(next_look(replace(data, looks=tuple(looks)), rows=MOST_ROWS, prices=PRICES))
    return summarize_data(replace(data, looks=tuple(looks))), tuple(looks)


def split_rows(study: MadeUp) -> MadeUp:
    """Move the rows beyond those of the training's evaluations to records of their own."""
    data = study.data
    return replace(
        study,
        data=replace(
            data,
            spec=data.spec.model_copy(update={"until_decided": True, "seeds": (0,)}),
            resolved=replace(data.resolved, eval_examples=HELD) if data.resolved else None,
            evaluations={name: tuple(map(_first_rows, records)) for name, records in data.evaluations.items()},
            further={name: (_further(records[-1]),) for name, records in data.evaluations.items()},
        ),
    )


def _first_rows(record: EvalRecord) -> EvalRecord:
    nats, tokens = record.example_nats[:HELD], record.example_target_tokens[:HELD]
    return replace(record, example_nats=nats, example_target_tokens=tokens)


def _further(record: EvalRecord) -> FurtherEvalRecord:
    return FurtherEvalRecord(
        trial_id=record.trial_id,
        first_row=HELD,
        example_nats=record.example_nats[HELD:],
        example_target_tokens=record.example_target_tokens[HELD:],
        seconds=1.0,
    )


def fixed(study: MadeUp, seeds: int, rows: int) -> StudySummary:
    """Summarise a part of a study as a fixed design of its own."""
    data = study.data
    trials = tuple(trial for trial in data.trials if trial.seed < seeds)

    def cut(record: EvalRecord) -> EvalRecord:
        nats, tokens = record.example_nats[:rows], record.example_target_tokens[:rows]
        return replace(record, example_nats=nats, example_target_tokens=tokens)

    return summarize_data(
        replace(
            data,
            spec=data.spec.model_copy(update={"seeds": tuple(range(seeds))}),
            trials=trials,
            outcomes={trial.trial_id: data.outcomes[trial.trial_id] for trial in trials},
            resolved=replace(data.resolved, eval_examples=rows) if data.resolved else None,
            evaluations={trial.trial_id: tuple(map(cut, data.evaluations[trial.trial_id])) for trial in trials},
        )
    )


def named_rank(summary: StudySummary) -> int | None:
    """Return the rank that a verdict names."""
    if summary.verdict.kind == "too_short":
        return None
    return min(claim.rank for claim in summary.verdict.claims if claim.adequate_p <= SHOWN)


def cost_of(looks: tuple[LookRecord, ...]) -> float:
    """Return what a study trained and evaluated, in rows; rates and the search for them are not counted."""
    first = looks[0]
    cost = len(first.ranks) * FIRST_SEEDS * (TRAINING_ROWS + HELD)
    for before, look in pairwise(looks):
        ranks = len(look.ranks)
        if before.next == "seed":
            cost += ranks * (TRAINING_ROWS + look.rows)
        else:
            cost += ranks * len(look.seeds) * (look.rows - before.rows)
    return float(cost)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Marks:
    named: bool
    wrong: bool
    false_claim: bool
    covered: list[bool]
    looks: int
    seeds: int
    rows: int
    cost: float
    fixed: list[bool]


def _mark(study: MadeUp, tolerance: float) -> _Marks:
    lowest = min(study.floors.values())
    above = {rank: floor - lowest for rank, floor in study.floors.items()}
    enough = min(rank for rank, excess in above.items() if excess <= tolerance)
    fixed_named = [named_rank(fixed(study, seeds, rows)) == enough for seeds, rows in FIXED]
    summary, looks = sequential(split_rows(study))
    claims = {part.rank: part for part in summary.verdict.claims}
    best = next(part.rank for part in summary.ranks if part.excess_loss == 0)
    found = named_rank(summary)
    return _Marks(
        named=found == enough,
        wrong=found not in (None, enough),
        false_claim=any(
            (claim.worse_p <= SHOWN and above[rank] <= 0)
            or (claim.inadequate_p <= SHOWN and above[rank] <= tolerance)
            or (claim.adequate_p <= SHOWN and above[rank] > tolerance)
            for rank, claim in claims.items()
        ),
        covered=[
            part.excess_loss_ci95[0] <= above[part.rank] - above[best] <= part.excess_loss_ci95[1]
            for part in summary.ranks
            if part.rank != best and part.excess_loss_ci95
        ],
        looks=len(looks),
        seeds=len(looks[-1].seeds),
        rows=looks[-1].rows,
        cost=cost_of(looks) / (len(above) * MOST_SEEDS * (TRAINING_ROWS + MOST_ROWS)),
        fixed=fixed_named,
    )


def score(name: str, truth: Truth, count: int) -> Score:
    """Run ``count`` studies of one truth."""
    one_rate = replace(truth, rates=(3e-4,))
    marks = [_mark(study, study.data.spec.tolerance) for study in studies(one_rate, count, crc32(name.encode()))]

    def mean(field: str) -> float:
        return round(float(np.mean([value for mark in marks for value in np.ravel(getattr(mark, field))])), 4)

    designs = [f"{seeds}x{rows}" for seeds, rows in FIXED]
    named = np.mean([mark.fixed for mark in marks], axis=0).round(4).tolist()
    most = MOST_SEEDS * (TRAINING_ROWS + MOST_ROWS)
    return Score(
        scenario=name,
        studies=count,
        named=mean("named"),
        wrong=mean("wrong"),
        false_claim=mean("false_claim"),
        covered=mean("covered"),
        looks=mean("looks"),
        seeds=mean("seeds"),
        rows=mean("rows"),
        cost=mean("cost"),
        fixed_named=dict(zip(designs, named, strict=True)),
        fixed_cost={f"{s}x{n}": round(s * (TRAINING_ROWS + n) / most, 3) for s, n in FIXED},
    )


def table(scores: list[Score]) -> str:
    """Write the scores as Markdown."""
    designs = [f"{seeds}x{rows}" for seeds, rows in FIXED]
    heading = "| scenario | right | another rank | something false | covered | looks | seeds | rows | cost |"
    lines = [f"{heading} {' | '.join(designs)} |", "| --- |" + " --: |" * (8 + len(designs))]
    if scores:
        costs = " | ".join(f"{scores[0].fixed_cost[design]:.0%}" for design in designs)
        lines.append(f"| *cost of the fixed design* | | | | | | | | | {costs} |")
    lines.extend(map(_line, scores))
    return "\n".join(lines)


def _line(found: Score) -> str:
    shares = " | ".join(f"{share:.1%}" for share in (found.named, found.wrong, found.false_claim, found.covered))
    sizes = f"{found.looks:.1f} | {found.seeds:.1f} | {found.rows:.0f} | {found.cost:.0%}"
    fixed_named = " | ".join(f"{share:.1%}" for share in found.fixed_named.values())
    return f"| {found.scenario} | {shares} | {sizes} | {fixed_named} |"


def _scores(names: list[str], count: int) -> Iterator[Score]:
    truths = scenarios()
    with ProcessPoolExecutor(max_workers=2) as pool:
        yield from pool.map(score, names, [truths[name] for name in names], [count] * len(names))


def main() -> None:
    """Simulate the scenarios asked for, then show the table of all that were."""
    arguments = read_arguments(__doc__)
    done = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    names = [name for name in scenarios() if name.startswith(tuple(arguments.scenarios.split(",")))]
    for found in _scores([] if arguments.table else names, arguments.studies):
        done[found.scenario] = asdict(found)
        RESULT.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        print(found, flush=True)
    print(table([Score(**done[name]) for name in scenarios() if name in done]))


if __name__ == "__main__":
    main()
