"""The coverage of 95% intervals over rows and seeds, for several rules; computed, not simulated. Needs SciPy.

An estimate is normal with the variance R + A. R, of the rows, is known and 1 here; H is the share of it that differs
between seeds. A is what the seeds add, seen only in V: A + H times a chi-square of f degrees of freedom over f.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Rule = Callable[[float, Floats, int], Floats]
"""H, V and f to the half-width."""
POINTS = 1500
H = (0.0, 0.3, 0.6, 0.9)
A = (0.0, *10 ** np.linspace(-2, 3, 26))


def by_degrees(degrees: Callable[[Floats, int], Floats], *, rows_at_least: bool = False) -> Rule:
    """Take a t interval; ``degrees`` are made of the variance as a multiple of V, and f.

    ``rows_at_least``: where seeds differ by less than their rows explain, V < H, the rows alone count.
    """

    def half_width(h: float, v: Floats, f: int) -> Floats:
        variance = np.maximum(1 - h + v, 1.0 if rows_at_least else 0.0)
        found = np.maximum(f, degrees(variance / v, f))
        found = np.where(v > h, found, np.inf) if rows_at_least else found
        return np.asarray(stats.t.isf(0.025, np.minimum(found, 1e7)) * np.sqrt(variance))

    return half_width


def in_quadrature(h: float, v: Floats, f: int) -> Floats:
    """Add the half-widths of rows and seeds as lengths at right angles; at least that of the rows."""
    normal, students = stats.norm.isf(0.025), stats.t.isf(0.025, f)
    return np.asarray(np.sqrt(np.maximum(normal**2, normal**2 * (1 - h) + students**2 * v)))


CHOSEN = "f (R - H + V) / V / (1 + 1 / f^2)"
RULES: dict[str, Rule] = {
    "Satterthwaite, at least rows": by_degrees(lambda ratio, f: f * ratio**2, rows_at_least=True),
    "f (R - H + V) / V, at least rows": by_degrees(lambda ratio, f: f * ratio, rows_at_least=True),
    "Satterthwaite": by_degrees(lambda ratio, f: f * ratio**2),
    "f (R - H + V) / V": by_degrees(lambda ratio, f: f * ratio),
    CHOSEN: by_degrees(lambda ratio, f: f * ratio / (1 + 1 / f**2)),
    "in quadrature": in_quadrature,
}


def coverage(rule: Rule, h: float, a: float, f: int) -> float:
    """Integrate over the distribution of V."""
    v = (a + h) * stats.chi2.ppf((np.arange(POINTS) + 0.5) / POINTS, f) / f
    reach = rule(h, np.maximum(v, 1e-12), f) / np.sqrt(1 + a)
    return float((1 - 2 * stats.norm.sf(reach)).mean())


def extremes(rule: Rule, f: int, shares: Iterable[float] = H, added: Iterable[float] = A) -> tuple[float, float]:
    """Find the lowest and the highest coverage."""
    added = tuple(added)
    found = [coverage(rule, h, a, f) for h in shares for a in added]
    return min(found), max(found)


def main() -> None:
    """Print the table of the decision page."""
    for name, rule in RULES.items():
        print(f"{name:34}", *("{:6.1%} - {:.1%}".format(*extremes(rule, f)) for f in (1, 2, 4, 8)))


if __name__ == "__main__":
    main()
