"""Work of a study by activity: a pure function of the study, the sizes of its rows and model, and what is done.

The unit is a token that goes forward through the base model. An adapter makes a token dearer by its share of the
base's parameters, and training makes it ``TRAINING`` times as dear.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from lorascope.records import Arm, HarnessTask, LookRecord, ResolvedStudy, TrialRecord
from lorascope.search.analyses import PendingAnalyses, pending_analyses
from lorascope.search.rounds import next_trials
from lorascope.search.sequential import seed_rounds
from lorascope.search.solo_runs import EFFORTS, pending_solo_runs
from lorascope.search.steps import evaluation_steps, rung_steps
from lorascope.search.trials import arm_name, planned_arms
from lorascope.spec.schema import StudySpec

Activity = Literal[
    "solo_runs",
    "training",
    "evaluation",
    "further_rows",
    "spectra",
    "forgetting_text",
    "truncation",
    "samples",
    "metrics",
    "lm_eval",
    "proof",
]
Overhead = Literal["preparation", "predictions", "looks", "report"]
"""Activities whose time is not counted in tokens."""
Work = dict[Activity, float]

TRAINING = 2.0
"""Cost of a token in training, as forward passes: one forward and one backward, as frozen weights have no gradient."""
PROOF_ROWS = 3
"""Held-out rows on which PEFT's losses are compared."""
_SVD, _SVD_RANKS = 15.0, 16
"""Singular values of rank r cost as much as ``_SVD`` * (r + ``_SVD_RANKS``) tokens through the adapter: measured for
ranks 2 to 256 in the layers of SmolLM2-135M, beside products of float32 matrices on one core of an AVX-512 machine."""
_GENERATION = 32.0
"""A step of generation takes as long as a forward pass of so many tokens and those that it makes: it reads all weights
for few tokens. That is assumed."""
HARNESS_BATCH = 8
"""Documents of a benchmark that are answered together."""
_UNSURE = 0.5
"""Chance that a setting beyond those that stay at a rung stays as well, within the margin of the best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Sizes that a study's work follows from."""

    total_steps: int
    """Optimizer steps of a trial."""
    step_tokens: float
    """Tokens of a trial's mean step."""
    heaviest_tokens: float
    """Tokens of the heaviest step, which a solo run ends with."""
    eval_tokens: float
    """Tokens of the held-out rows."""
    eval_examples: int
    text_tokens: float = 0.0
    """Tokens of the forgetting text."""
    adapter_share: Mapping[str, float] | None = None
    """Parameters of an adapter of rank 1, divided by the base's, by set of target modules; None leaves adapters out."""
    harness: tuple[HarnessTask, ...] = ()
    """Benchmarks that follow training."""

    def token(self, arm: Arm) -> float:
        """Return the cost of a token that goes forward through the base and an adapter."""
        return 1.0 + self.adapter_parameters(arm)

    def adapter_parameters(self, arm: Arm) -> float:
        """Return the parameters of an adapter, divided by the base's."""
        targets, rank = arm
        return rank * self.adapter_share[targets] if self.adapter_share else 0.0

    def train_step(self, arm: Arm) -> float:
        """Return the work of a trial's mean step."""
        return TRAINING * self.step_tokens * self.token(arm)

    def evaluation(self, arm: Arm) -> float:
        """Return the work of one evaluation on the held-out rows."""
        return self.eval_tokens * self.token(arm)


def sizes_of(
    spec: StudySpec,
    resolved: ResolvedStudy,
    *,
    step_tokens: Sequence[int] = (),
    text_tokens: float = 0.0,
    adapter_share: Mapping[str, float] | None = None,
    harness: tuple[HarnessTask, ...] = (),
) -> Sizes:
    """Return the sizes of a resolved study.

    Args:
        spec: the study.
        resolved: the same.
        step_tokens: tokens of each of a trial's first steps; without them every step is as heavy as the mean one.
        text_tokens: of the forgetting text.
        adapter_share: see ``Sizes``.
        harness: the same.
    """
    rows = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
    mean = resolved.train_tokens / resolved.train_examples * min(rows, resolved.train_examples)
    return Sizes(
        total_steps=resolved.total_steps,
        step_tokens=fmean(step_tokens) if step_tokens else mean,
        heaviest_tokens=max(step_tokens, default=mean),
        eval_tokens=float(resolved.eval_tokens or 0),
        eval_examples=resolved.eval_examples,
        text_tokens=text_tokens,
        adapter_share=adapter_share,
        harness=harness,
    )


@dataclass(kw_only=True, slots=True)
class TrialProgress:
    """How far a trial of the round that trains is."""

    trial: TrialRecord
    steps: int = 0
    """Optimizer steps done."""
    evaluated: int = -1
    """Step of its last evaluation; -1 before the first."""
    ended: bool = False


def planned_work(spec: StudySpec, sizes: Sizes, *, left_out: Collection[str] = ()) -> Work:
    """Return the work of a whole study, without what later looks may ask for and what a time budget leaves out."""
    arms = planned_arms(spec)
    first = [TrialProgress(trial=trial) for trial in next_trials(spec, [], {})]
    solo_runs = [] if "solo_runs" in left_out else pending_solo_runs(spec, arms, [])
    work: Work = {"solo_runs": solo_work(spec, sizes, solo_runs)}
    trained = {arm: arm_name(arm) for arm in arms}
    scored = {f"{name}-s{seed}": arm for arm, name in trained.items() for seed in spec.seeds}
    pending = pending_analyses(
        spec, trained, [], scored=scored, n_eval=sizes.eval_examples, left_out=left_out, harness=sizes.harness
    )
    work |= training_work(spec, sizes, first)
    work |= analysis_work(spec, sizes, pending, scored | {name: arm for arm, name in trained.items()})
    return work | {"proof": proof_work(sizes, arms)}


def solo_work(spec: StudySpec, sizes: Sizes, pending: Iterable[tuple[Arm, int]]) -> float:
    """Return the work of solo runs, each an arm with its repeat."""
    effort = EFFORTS[spec.cost]
    work = 0.0
    for arm, repeat in pending:
        is_last = repeat == effort.repeats - 1
        tokens = effort.steps * sizes.step_tokens + (sizes.heaviest_tokens if is_last else sizes.step_tokens)
        held_out = min(sizes.eval_tokens, spec.tokens_per_pass) if is_last else 0.0
        work += sizes.token(arm) * (TRAINING * tokens + held_out)
    return work


def training_work(
    spec: StudySpec,
    sizes: Sizes,
    current: Sequence[TrialProgress],
    *,
    before: Sequence[TrialRecord] = (),
    losses: Mapping[str, float] = MappingProxyType({}),
    looks: Sequence[LookRecord] = (),
) -> Work:
    """Return the training and the evaluations that are still to come.

    Args:
        spec: the study.
        sizes: of its rows and model.
        current: all trials of the round that trains.
        before: trials of rounds that ended.
        losses: held-out losses so far, in nats a token, by trial id.
        looks: those that a sequential study has taken.
    """
    work = _round_work(spec, sizes, current, rivals=bool(before))
    known = [*before, *(one.trial for one in current)]
    for trials in rounds_to_come(spec, known, losses, looks):
        more = round_work(spec, sizes, trials)
        work = {name: work[name] + more[name] for name in work}
    if current and not before and all(one.evaluated < 0 for one in current):
        work["evaluation"] += sizes.eval_tokens  # the base, once
    return work


def rounds_to_come(
    spec: StudySpec, trials: Sequence[TrialRecord], losses: Mapping[str, float], looks: Sequence[LookRecord] = ()
) -> list[tuple[TrialRecord, ...]]:
    """Return the rounds that follow those of ``trials``, if settings end in the order that they are in now.

    An arm without a loss is taken to be best at the middle of its rates.
    """
    known, before = {**_middle_losses(trials, losses), **losses}, list(trials)
    found: list[tuple[TrialRecord, ...]] = []
    while more := next_trials(spec, before, known):
        found.append(more)
        before += more
    there = {trial.trial_id for trial in before}
    asked = (tuple(trial for trial in more if trial.trial_id not in there) for more in seed_rounds(spec, looks))
    return [*found, *filter(None, asked)]


def _middle_losses(trials: Sequence[TrialRecord], losses: Mapping[str, float]) -> dict[str, float]:
    with_loss = {trial.arm for trial in trials if trial.trial_id in losses}
    found: dict[str, float] = {}
    for arm in {trial.arm for trial in trials} - with_loss:
        own = [trial for trial in trials if trial.arm == arm]
        alpha = own[0].lora_alpha
        rates = sorted({trial.learning_rate for trial in own if trial.lora_alpha == alpha})
        middle = (alpha, rates[len(rates) // 2])
        found |= {trial.trial_id: 0.0 for trial in own if trial.setting == middle}
    return found


def round_work(spec: StudySpec, sizes: Sizes, trials: Sequence[TrialRecord], *, steps: int = 0) -> Work:
    """Return the work of trials that train together, after so many steps, the base evaluated before."""
    evaluated = max((step for step in evaluation_steps(spec, sizes.total_steps) if step <= steps), default=0)
    progress = [TrialProgress(trial=trial, steps=steps, evaluated=evaluated) for trial in trials]
    return _round_work(spec, sizes, progress, rivals=True)


def _round_work(spec: StudySpec, sizes: Sizes, trials: Sequence[TrialProgress], *, rivals: bool) -> Work:
    """Return the work of the trials of one round that have not ended; at its rungs some of them will."""
    total = sizes.total_steps
    searches = {one.trial.seed for one in trials} == {spec.seeds[0]}
    rungs = rung_steps(spec, total) if searches else ()
    evaluated = evaluation_steps(spec, total)
    work: Work = {"training": 0.0, "evaluation": 0.0}
    for arm in dict.fromkeys(one.trial.arm for one in trials):
        own = [one for one in trials if one.trial.arm == arm]
        alive = [one for one in own if not one.ended]
        settings = len({one.trial.setting for one in own}) + rivals
        for one in alive:
            staying = {
                rung: min(1.0, _share_staying(settings, place) * len(own) / len(alive))
                for place, rung in enumerate(rungs)
                if rung > one.evaluated
            }
            at = max(0, one.evaluated)
            for first, last in _between(min(one.steps, at), staying, total):
                share = _least(staying, last)
                n_evaluations = bisect_right(evaluated, last) - bisect_right(evaluated, max(first, at))
                work["training"] += share * sizes.train_step(arm) * max(0, last - max(first, one.steps))
                work["evaluation"] += share * sizes.evaluation(arm) * max(0, n_evaluations)
    return work


def _share_staying(settings: int, place: int) -> float:
    """Return the share of an arm's settings that are expected to stay at a rung, by its place."""
    stay = math.ceil(settings / (2 << place))
    return (stay + (_UNSURE if stay < settings else 0.0)) / settings


def _least(staying: Mapping[int, float], step: int) -> float:
    """Return the chance that a trial takes a step: it has passed the rungs before it."""
    return min((share for rung, share in staying.items() if rung < step), default=1.0)


def _between(first: int, rungs: Iterable[int], last: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of steps between rungs, each as (steps before it, last step)."""
    for rung in (*sorted(rung for rung in rungs if rung > first), last):
        yield first, rung
        first = rung


def analysis_work(spec: StudySpec, sizes: Sizes, pending: PendingAnalyses, arms: Mapping[str, Arm]) -> Work:
    """Return the work of analyses of trained adapters.

    Args:
        spec: the study.
        sizes: of the study.
        pending: the analyses that are to be made.
        arms: the arm that each trial stands for, by trial id.
    """
    decomposed = [*pending.spectra, *dict.fromkeys(trial_id for trial_id, _ in pending.truncations)]
    return {
        "spectra": sum(spectrum_work(sizes, arms[trial_id]) for trial_id in decomposed),
        "forgetting_text": sum(text_work(sizes, arms.get(trial_id)) for trial_id in pending.forgetting),
        "truncation": sum(sizes.evaluation((arms[trial_id][0], rank)) for trial_id, rank in pending.truncations),
        "samples": sum(sample_work(spec, sizes, map(arms.get, trial_ids)) for _, trial_ids in pending.samples),
        "metrics": sum(sample_work(spec, sizes, map(arms.get, trial_ids)) for _, trial_ids in pending.scores),
        "lm_eval": sum(harness_work(sizes, task, map(arms.get, trial_ids)) for task, trial_ids in pending.benchmarks),
    }


def spectrum_work(sizes: Sizes, arm: Arm) -> float:
    """Return the work of an adapter's singular values, which grows with the square of its rank."""
    return _SVD * sizes.adapter_parameters(arm) * (arm[1] + _SVD_RANKS)


def text_work(sizes: Sizes, arm: Arm | None) -> float:
    """Return the work of one evaluation on the forgetting text; None stands for the base model."""
    return sizes.text_tokens * (sizes.token(arm) if arm else 1.0)


def sample_work(spec: StudySpec, sizes: Sizes, arms: Iterable[Arm | None]) -> float:
    """Return the work of the answers to one held-out prompt, which are made together; None stands for the base."""
    prompt_tokens = sizes.eval_tokens / sizes.eval_examples if sizes.eval_examples else 0.0
    return answer_work(spec, prompt_tokens, [sizes.token(arm) if arm else 1.0 for arm in arms])


def answer_work(spec: StudySpec, prompt_tokens: float, costs: Sequence[float]) -> float:
    """Return the work of answers to a prompt; ``costs`` are those of a token of each who answers."""
    return prompt_tokens * sum(costs) + spec.max_new_tokens * (_GENERATION + sum(costs))


def harness_work(sizes: Sizes, task: HarnessTask, arms: Iterable[Arm | None]) -> float:
    """Return the work of a benchmark's task; None stands for the base model."""
    costs = [sizes.token(arm) if arm else 1.0 for arm in arms]
    return task.tokens * sum(costs) + task.new_tokens * sum(cost + _GENERATION / HARNESS_BATCH for cost in costs)


def proof_work(sizes: Sizes, arms: Iterable[Arm]) -> float:
    """Return the work of comparing adapters with what PEFT makes of them, the base's own losses included."""
    own = [_proof(sizes, arm) for arm in arms]
    return sum(own) + _proof(sizes, None) if own else 0.0


def _proof(sizes: Sizes, arm: Arm | None) -> float:
    rows = min(PROOF_ROWS, sizes.eval_examples)
    tokens = sizes.eval_tokens / sizes.eval_examples * rows if rows else 0.0
    return tokens * (sizes.token(arm) if arm else 1.0)
