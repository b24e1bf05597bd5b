"""Studies whose truth is known: held-out losses made from effects and noise, given to the program as its own records.

Shapes: K ranks, L learning rates, S seeds, N held-out rows. The nats of a row of t tokens are t times

    floor of the rank + what its rate costs + what the seed changes + what the row changes.

The row's part has mean 0 whatever its tokens, so that the loss over all rows there could be, sum of nats over sum of
tokens, is the rest: the truth. Sizes are of the order of those of SmolLM2-135M on instruction rows: two ranks differ by
0.02 to 0.03 nats a token on a single row, with tails heavier than a normal's, less on long rows than on short ones.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.analysis.study_data import StudyData, load_study
from lorascope.message import Message
from lorascope.records import EvalRecord, ResolvedStudy, TrialOutcome, TrialRecord
from lorascope.search.trials import plan_trials
from lorascope.spec.load import dump_spec
from lorascope.spec.schema import StudySpec
from lorascope.store import StudyStore

Floats = NDArray[np.float64]
STEPS = 80
MEAN_TOKENS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What a study's losses are made of; nats a token."""

    floors: dict[int, float]
    """The loss of each rank at its best rate, over all seeds and rows there could be."""
    seeds: int
    rows: int
    rates: tuple[float, ...] = (1e-4, 3e-4)
    rate_cost: float = 0.02
    """Added for each step on the grid of rates away from the best, the middle one or the one above the middle."""
    seed: float = 0.005
    """Standard deviation of what a seed adds to all ranks alike."""
    seed_of_rank: float = 0.002
    """Of what a seed adds to one rank at all its rates."""
    seed_by_size: float = 0.0
    """Of a slope over log rank that a seed adds: neighbouring ranks move together, the ends apart."""
    seed_of_rate: float = 0.001
    """Of what a seed adds to one rank at one rate."""
    last_seed_factor: float = 1.0
    """How many times more than the others the largest rank is moved by a seed."""
    row_of_rank: float = 0.02
    """Of what makes a row harder for one rank, in every seed."""
    row_of_trial: float = 0.02
    """Of what makes a row harder for one trial."""
    tail_degrees: float = 4.0
    """Student's t that the rows' parts are drawn from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUp:
    """One study and what is true of it."""

    data: StudyData
    floors: dict[int, float]
    """The losses of the ranks at their best rates: over all seeds, or of the one seed there is."""


def studies(truth: Truth, count: int, entropy: int) -> Iterator[MadeUp]:
    """Make studies, each from a generator of its own: study n of one truth is always the same."""
    spec = StudySpec(ranks=tuple(truth.floors), learning_rates=truth.rates, seeds=tuple(range(truth.seeds)))
    empty, trials = _finished_study(spec, truth.rows), plan_trials(spec)
    for number in range(count):
        yield _study(empty, trials, truth, np.random.default_rng([entropy, number]))


def _study(empty: StudyData, trials: Sequence[TrialRecord], truth: Truth, random: np.random.Generator) -> MadeUp:
    shape = (len(truth.floors), len(truth.rates), truth.seeds, truth.rows)
    tokens_N = np.maximum(2, np.round(MEAN_TOKENS * np.exp(random.normal(-0.2, 0.63, truth.rows))))
    seeds_KLS = _seed_parts(truth, random)
    floors_K = np.array(list(truth.floors.values()))
    costs_L = truth.rate_cost * np.abs(np.arange(shape[1]) - shape[1] // 2)
    means_KLS = (floors_K[:, None] + costs_L)[:, :, None] + seeds_KLS
    nats_KLSN = tokens_N * (means_KLS[..., None] + _row_parts(truth, random, tokens_N))
    places = {
        (rank, rate, seed): (k, j, s)
        for k, rank in enumerate(truth.floors)
        for j, rate in enumerate(truth.rates)
        for s, seed in enumerate(range(truth.seeds))
    }
    evaluations = {
        trial.trial_id: _curve(trial, nats_KLSN[places[trial.rank, trial.learning_rate, trial.seed]], tokens_N)
        for trial in trials
    }
    held_K = means_KLS.min(axis=1)[:, 0] if truth.seeds == 1 else floors_K
    return MadeUp(
        data=replace(empty, evaluations=evaluations),
        floors=dict(zip(truth.floors, held_K.tolist(), strict=True)),
    )


def _seed_parts(truth: Truth, random: np.random.Generator) -> Floats:
    n_ranks, n_rates, n_seeds = len(truth.floors), len(truth.rates), truth.seeds
    sizes_K = np.linspace(-1, 1, n_ranks)[:, None, None]
    factor_K = np.where(np.arange(n_ranks) == n_ranks - 1, truth.last_seed_factor, 1.0)[:, None, None]
    own = truth.seed_of_rank * random.normal(size=(n_ranks, 1, n_seeds))
    own = own + truth.seed_of_rate * random.normal(size=(n_ranks, n_rates, n_seeds))
    together = truth.seed * random.normal(size=n_seeds) + truth.seed_by_size * sizes_K * random.normal(size=n_seeds)
    return np.asarray(together + factor_K * own)


def _row_parts(truth: Truth, random: np.random.Generator, tokens_N: Floats) -> Floats:
    """What rows add to a token's loss, [K, L, S, N]; long rows average more tokens and so vary less."""
    n_ranks, n_rates, n_seeds = len(truth.floors), len(truth.rates), truth.seeds
    spread = np.sqrt((truth.tail_degrees - 2) / truth.tail_degrees)

    def heavy(*shape: int) -> Floats:
        return np.asarray(spread * random.standard_t(truth.tail_degrees, size=(*shape, truth.rows)))

    hardness_N = 0.5 * heavy()
    by_rank = truth.row_of_rank * (
        heavy(n_ranks, 1, 1) + heavy() * np.linspace(-0.5, 0.5, n_ranks)[:, None, None, None]
    )
    by_trial = truth.row_of_trial * heavy(n_ranks, n_rates, n_seeds)
    return np.asarray((hardness_N + by_rank + by_trial) * np.sqrt(MEAN_TOKENS / tokens_N))


def _curve(trial: TrialRecord, last_N: Floats, tokens_N: Floats) -> tuple[EvalRecord, ...]:
    """Lead down to the last losses on an exponential curve."""
    tokens = tuple(tokens_N.astype(int).tolist())
    records = []
    for step in (0, STEPS // 2, STEPS):
        above = float(np.exp(-6 * step / STEPS) - np.exp(-6))
        nats = tuple((last_N + above * tokens_N).tolist())
        records.append(
            EvalRecord(trial_id=trial.trial_id, step=step, example_nats=nats, example_target_tokens=tokens, seconds=1.0)
        )
    return tuple(records)


def _finished_study(spec: StudySpec, rows: int) -> StudyData:
    """Write and read a study that is finished but for its evaluations."""
    trials = plan_trials(spec)
    resolved = ResolvedStudy(
        model="made-up/model", dataset="made-up/rows", device="cpu", dtype="float32",
        dtype_reason=Message("asked"), packing=True,
        packing_reason=Message("asked"), train_examples=8 * STEPS, eval_examples=rows, train_tokens=1,
        train_target_tokens=1,
        eval_target_tokens=rows * MEAN_TOKENS, total_steps=STEPS, base_parameters=1, target_modules=(), data_hash="",
        model_hash="", data_notes=(), kernels=False, kernels_reason=Message("asked"),
        eval_tokens=rows * MEAN_TOKENS,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(dump_spec(spec), encoding="utf-8")
        with StudyStore.create(folder / "study.db") as store:
            store.put(resolved)
            store.put_all(trials)
            for trial in trials:
                store.put(TrialOutcome(trial_id=trial.trial_id, state="finished", steps=STEPS, message=None))
        return load_study(folder)
