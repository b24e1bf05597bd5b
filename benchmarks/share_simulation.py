"""How often the interval of a difference of solved rows holds the truth: made-up rows of 0 and 1.

    share_simulation.py              # every scenario, 4,000 studies each
    share_simulation.py --studies 500

A row is solved where its hardness, which all ranks share in part, lies below what the rank and its seed can do (a
probit model). Nothing is timed.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from scipy.special import ndtri

from lorascope.analysis.estimates.paired import SeedRows, differences
from lorascope.analysis.estimates.shares import share_differences, share_levels

SEED_SPREAD = 0.1
"""Standard deviation of what a seed adds to the ability of a rank, where there are several seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """What is true of made-up rows."""

    rates: tuple[float, ...]
    """Share of all rows there could be that each rank solves."""
    rows: int
    seeds: int = 1
    shared: float = 0.8
    """Share of the variance of a row's hardness that is the same for all ranks and seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Shares over the studies of one scenario."""

    telling: float
    """Mean number of rows that tell the first two ranks apart."""
    difference: float
    """Intervals of the difference of the first two ranks that hold the true one."""
    plain: float
    """The same of the interval that a loss would have."""
    level: float
    """Intervals of the first rank's share that hold the true one."""


def scenarios() -> Iterator[Shares]:
    """Yield few and many rows, with rates near the ends and in the middle, equal and not."""
    for seeds in (1, 2, 3):
        for rows in (20, 64, 256):
            for rates in ((0.02, 0.02), (0.05, 0.02), (0.1, 0.1), (0.5, 0.5), (0.5, 0.6), (0.9, 0.85), (0.98, 0.98)):
                yield Shares(rates=rates, rows=rows, seeds=seeds)
            yield Shares(rates=(0.3, 0.3, 0.3), rows=rows, seeds=seeds, shared=0.9)


def make_rows(truth: Shares, random: np.random.Generator) -> list[SeedRows]:
    """Draw which rows each rank solves, seed by seed."""
    shape, spread = (len(truth.rates), truth.seeds), SEED_SPREAD if truth.seeds > 1 else 0.0
    reach_KS = ndtri(truth.rates)[:, None] * np.sqrt(1 + spread**2) + spread * random.normal(size=shape)
    common_N, own_KSN = random.normal(size=truth.rows), random.normal(size=(*shape, truth.rows))
    hardness_KSN = np.sqrt(truth.shared) * common_N + np.sqrt(1 - truth.shared) * own_KSN
    solved_KSN = (hardness_KSN < reach_KS[..., None]).astype(float)
    return [SeedRows(nats=solved_SN, target_tokens=np.ones(truth.rows)) for solved_SN in solved_KSN]


def coverage(truth: Shares, studies: int) -> Coverage:
    """Count how often intervals hold the truth."""
    random = np.random.default_rng(crc32(repr(truth).encode()))
    found = np.array([_marks(make_rows(truth, random), truth) for _ in range(studies)])
    telling, difference, plain, level = (round(float(share), 4) for share in found.mean(axis=0))
    return Coverage(telling=telling, difference=difference, plain=plain, level=level)


def _marks(ranks: list[SeedRows], truth: Shares) -> tuple[float, bool, bool, bool]:
    apart = truth.rates[0] - truth.rates[1]
    estimates = share_differences(ranks)[0, 1], differences(ranks)[0, 1], share_levels(ranks)[0]
    held = [
        interval.low <= value <= interval.high
        for interval, value in zip((one.interval() for one in estimates), (apart, apart, truth.rates[0]), strict=True)
    ]
    telling = float((ranks[0].nats != ranks[1].nats).any(axis=0).sum())
    return telling, held[0], held[1], held[2]


def main() -> None:
    """Print a table of all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=4000)
    studies = parser.parse_args().studies
    print("| seeds | rows | rates | rows that differ | difference covered | by a loss's interval | share covered |")
    print("| --: | --: | --- | --: | --: | --: | --: |")
    for truth in scenarios():
        found = coverage(truth, studies)
        rates = ", ".join(f"{rate:g}" for rate in truth.rates)
        shares = " | ".join(f"{share:.1%}" for share in (found.difference, found.plain, found.level))
        print(f"| {truth.seeds} | {truth.rows} | {rates} | {found.telling:.1f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
