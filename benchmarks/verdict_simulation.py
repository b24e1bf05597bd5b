"""How often the verdict is right: summaries of made-up studies beside their truth.

    verdict_simulation.py                      # every scenario, 1,000 studies each, about half an hour
    verdict_simulation.py --scenarios two,six  # those whose names begin so
    verdict_simulation.py --table              # the table of what was simulated so far

Each scenario is written as soon as it is done, so that the whole can run in pieces. Nothing is timed.
"""

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from lorascope.analysis.summarize import summarize_data
from lorascope.analysis.summary import StudySummary
from lorascope.analysis.verdict.recommend import PRICE
from made_up_studies import MadeUp, Truth, studies

RESULT = Path(__file__).parent / "results" / "verdict-simulation.json"
SHOWN = 0.05
WAYS = (
    "recommended", "always about 16", "always the smallest", "always the largest", "lowest at one rate and seed",
    "lowest of all",
)  # fmt: skip
"""Ways to choose a rank: the program's, folklore's, and those of scripts that compare single runs."""
EFFECTS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)
SEEDS = (1, 2, 3, 5)
ROWS = (100, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Shares over the studies of one scenario."""

    scenario: str
    studies: int
    loss_covered: float
    """Intervals of a rank's loss that hold its true loss."""
    excess_covered: float
    """Intervals of a rank's excess that hold its true difference from the rank with the lowest estimate."""
    excess_width: float
    """Their mean width, in nats a token."""
    matters: float
    """Studies that say that rank matters."""
    false_worse: float
    """Studies that show a rank to be worse that is worse than none."""
    false_inadequate: float
    """Studies that show a rank to exceed the tolerance that does not."""
    false_adequate: float
    """Studies that show a rank to be within the tolerance that is not."""
    named: float
    """Studies whose verdict names the smallest rank that is truly within the tolerance."""
    too_short: float
    adequate: float
    no_measurable_difference: float
    regret: dict[str, float]
    """Mean regret of each way to choose a rank, in nats a token: true loss and price above those of the best choice."""


def scenarios() -> dict[str, Truth]:
    """Name every scenario: effect of the smallest rank, seeds, rows; then single changes that make it harder."""
    found = {
        f"effect-{effect:g}-s{seeds}-n{rows}": truth_of(effect, seeds, rows)
        for effect in EFFECTS
        for seeds in SEEDS
        for rows in ROWS
    }
    changes: dict[str, dict[str, Any]] = {
        "no-seed-noise": {"seed_of_rank": 0.0, "seed_of_rate": 0.0},
        "much-seed-noise": {"seed_of_rank": 0.006},
        "no-row-noise-of-trials": {"row_of_trial": 0.0},
        "more-seed-noise-at-256": {"last_seed_factor": 2.0},
        "seed-noise-by-size": {"seed_by_size": 0.002},
        "close-rates": {"rate_cost": 0.001, "rates": (1e-4, 3e-4, 1e-3)},
        "very-heavy-tails": {"tail_degrees": 2.5},
        "two-ranks": {"floors": {8: 1.0, 64: 1.0}},
        "two-ranks-much-seed-noise": {"floors": {8: 1.0, 64: 1.0}, "seed_of_rank": 0.006},
        "six-ranks": {"floors": dict.fromkeys((4, 8, 16, 32, 64, 128), 1.0)},
    }
    for name, change in changes.items():
        for seeds in (2, 3):
            found[f"{name}-s{seeds}"] = Truth(**{"floors": truth_of(0.0, 1, 1).floors, **change}, seeds=seeds, rows=256)
    quiet: dict[str, Any] = {
        "seed_of_rank": 0.0005, "seed_of_rate": 0.0003, "row_of_rank": 0.01, "row_of_trial": 0.01
    }  # fmt: skip
    for effect in (0.0, 0.01):
        for seeds in (2, 3, 5):
            found[f"quiet-{effect:g}-s{seeds}"] = replace(truth_of(effect, seeds, 256), **quiet)
    return found


def truth_of(effect: float, seeds: int, rows: int) -> Truth:
    """Make rank 8 worse than two equal ranks."""
    return Truth(floors={8: 1.0 + effect, 64: 1.0, 256: 1.0}, seeds=seeds, rows=rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Marks:
    """What one study got right."""

    loss_covered: list[bool]
    excess_covered: list[bool]
    excess_width: list[float]
    matters: bool
    false_worse: bool
    false_inadequate: bool
    false_adequate: bool
    named: bool
    kind: str
    regret: dict[str, float]


def score(name: str, truth: Truth, count: int) -> Score:
    """Summarise ``count`` studies of one truth and hold them against it."""
    marks = [_mark(study, summarize_data(study.data)) for study in studies(truth, count, crc32(name.encode()))]
    kinds = Counter(mark.kind for mark in marks)

    def share(field: str) -> float:
        return round(float(np.mean(np.concatenate([np.ravel(getattr(mark, field)) for mark in marks]))), 5)

    fields = ("loss_covered", "excess_covered", "excess_width", "matters", "named")
    errors = ("false_worse", "false_inadequate", "false_adequate")
    named = {kind: kinds[kind] / count for kind in ("too_short", "adequate", "no_measurable_difference")}
    regret = {way: round(float(np.mean([mark.regret[way] for mark in marks])), 6) for way in WAYS}
    shares = {field: share(field) for field in (*fields, *errors)}
    return Score(scenario=name, studies=count, **shares, **named, regret=regret)


def _mark(study: MadeUp, summary: StudySummary) -> _Marks:
    tolerance, lowest = summary.study.tolerance, min(study.floors.values())
    above = {rank: floor - lowest for rank, floor in study.floors.items()}
    claims = {part.rank: part for part in summary.verdict.claims}
    best = next(part.rank for part in summary.ranks if part.excess_loss == 0)
    others = [part for part in summary.ranks if part.rank != best]
    named = min((rank for rank in claims if claims[rank].adequate_p <= SHOWN), default=None)
    enough = min(rank for rank, excess in above.items() if excess <= tolerance)
    return _Marks(
        loss_covered=[_holds(part.eval_loss_ci95, study.floors[part.rank]) for part in summary.ranks],
        excess_covered=[_holds(part.excess_loss_ci95, above[part.rank] - above[best]) for part in others],
        excess_width=[part.excess_loss_ci95[1] - part.excess_loss_ci95[0] for part in others if part.excess_loss_ci95],
        matters=summary.verdict.rank_matters is True,
        false_worse=any(claims[rank].worse_p <= SHOWN and above[rank] <= 0 for rank in above),
        false_inadequate=any(claims[rank].inadequate_p <= SHOWN and above[rank] <= tolerance for rank in above),
        false_adequate=any(claims[rank].adequate_p <= SHOWN and above[rank] > tolerance for rank in above),
        named=summary.verdict.kind != "too_short" and named == enough,
        kind=summary.verdict.kind,
        regret=_regret(study, summary),
    )


def _regret(study: MadeUp, summary: StudySummary) -> dict[str, float]:
    """Return the regret of each way to choose a rank: loss, and a price for each doubling of the rank."""
    price = PRICE * summary.study.tolerance
    cost = {rank: floor + price * math.log2(rank) for rank, floor in study.floors.items()}
    rates, seeds = summary.study.learning_rates, summary.study.seeds
    script = [trial for trial in summary.trials if trial.learning_rate == rates[0] and trial.seed == seeds[0]]
    chosen = {
        "recommended": summary.recommendation.use.rank,
        "always about 16": min(cost, key=lambda rank: (abs(math.log2(rank / 16)), rank)),
        "always the smallest": min(cost),
        "always the largest": max(cost),
        "lowest at one rate and seed": min(script, key=lambda trial: trial.eval_loss or math.inf).rank,
        "lowest of all": next(part.rank for part in summary.ranks if part.excess_loss == 0),
    }
    return {way: cost[rank] - min(cost.values()) for way, rank in chosen.items() if rank is not None}


def _holds(interval: tuple[float, float] | None, value: float) -> bool:
    assert interval is not None
    return interval[0] <= value <= interval[1]


def table(scores: list[Score]) -> str:
    """Write the scores as Markdown, in percent; widths in nats a token."""
    heading = (
        "| scenario | loss covered | excess covered | width | rank matters | falsely worse | falsely inadequate "
        "| falsely adequate | right rank named | `adequate` | no difference | `too_short` |"
    )
    lines = [heading, "| --- |" + " --: |" * 11]
    for found in scores:
        shares = [
            found.matters, found.false_worse, found.false_inadequate, found.false_adequate, found.named,
            found.adequate, found.no_measurable_difference, found.too_short,
        ]  # fmt: skip
        covered = f"{found.loss_covered:.1%} | {found.excess_covered:.1%} | {found.excess_width:.4f}"
        lines.append(f"| {found.scenario} | {covered} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    return "\n".join(lines)


def pivot(scores: dict[str, Score], field: str) -> str:
    """Write one share of the plain scenarios as Markdown: an effect a row, seeds and held-out rows a column."""
    columns = [(seeds, rows) for rows in ROWS for seeds in SEEDS]
    heading = " | ".join(f"{seeds} seed{'s' * (seeds > 1)}, {rows} rows" for seeds, rows in columns)
    lines = [f"| effect | {heading} |", "| --- |" + " --: |" * len(columns)]
    for effect in EFFECTS:
        names = [f"effect-{effect:g}-s{seeds}-n{rows}" for seeds, rows in columns]
        cells = [f"{getattr(scores[name], field):.1%}" if name in scores else "" for name in names]
        lines.append(f"| {effect:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def regret_table(scores: list[Score]) -> str:
    """Write the regret of each way to choose as Markdown, in thousandths of a nat a token."""
    means = {way: float(np.mean([found.regret[way] for found in scores])) for way in WAYS}
    rows = {found.scenario: found.regret for found in scores} | {"*mean*": means}
    heading = [f"| scenario | {' | '.join(WAYS)} |", "| --- |" + " --: |" * len(WAYS)]
    lines = (f"| {name} | {' | '.join(f'{1000 * of[way]:.2f}' for way in WAYS)} |" for name, of in rows.items())
    return "\n".join([*heading, *lines])


def read_arguments(text: str | None) -> argparse.Namespace:
    """Read which scenarios to simulate, with how many studies each."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="", help="only those whose names begin so, with commas between")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--table", action="store_true", help="simulate nothing")
    return parser.parse_args()


def main() -> None:
    """Simulate the scenarios asked for, then show the table of all that were."""
    arguments = read_arguments(__doc__)
    done = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name, truth in scenarios().items():
        if name.startswith(tuple(arguments.scenarios.split(","))) and not arguments.table:
            done[name] = asdict(score(name, truth, arguments.studies))
            RESULT.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
            print(name, done[name], flush=True)
    scores = {name: Score(**done[name]) for name in scenarios() if name in done}
    for field in (
        "excess_covered",
        "loss_covered",
        "matters",
        "named",
        "false_worse",
        "false_inadequate",
        "false_adequate",
    ):
        print(f"{field}\n\n{pivot(scores, field)}\n")
    print(table(list(scores.values())))
    print(f"\nregret\n\n{regret_table(list(scores.values()))}")


if __name__ == "__main__":
    main()
