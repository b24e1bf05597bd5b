"""Micro-batches: how the rows of a step's trials are split for the model."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.modeling.packing.prefixes import PrefixGroup, find_prefix_groups
from lorascope.spec.schema import StudySpec

_BUDGETS = 8
"""Smaller budgets that are tried to make micro-batches of equal size."""


def shares_prefixes(frozen: FrozenModel, spec: StudySpec, *, training: bool) -> bool:
    """Return True if rows of a batch share the prefixes that they have in common."""
    exact = not training or spec.lora_dropout == 0
    return frozen.can_share and (spec.share_prefixes == "always" or (spec.share_prefixes == "exact" and exact))


def split_rows(
    frozen: FrozenModel, rows: Sequence[Sequence[MicroBatchRow]], *, tokens_per_pass: int, share: bool
) -> list[list[MicroBatchRow]]:
    """Split each trial's rows into micro-batches that the model computes rightly; see ``plan_microbatches``."""
    budget, padded = 1 if frozen.alone else tokens_per_pass, not frozen.packing
    if frozen.switch is None:
        return plan_microbatches(rows, tokens_per_pass=budget, padded=padded, share=share)
    longer = [[row.example.n_tokens > frozen.switch for row in trial_rows] for trial_rows in rows]
    parts = [
        [list(compress(own, map(wanted.__eq__, chosen))) for own, chosen in zip(rows, longer, strict=True)]
        for wanted in (False, True)
    ]
    plans = [plan_microbatches(part, tokens_per_pass=budget, padded=padded, share=share) for part in parts if any(part)]
    return [microbatch for plan in plans for microbatch in plan]


def plan_microbatches(
    rows: Sequence[Sequence[MicroBatchRow]], *, tokens_per_pass: int, padded: bool, share: bool
) -> list[list[MicroBatchRow]]:
    """Split each trial's rows into micro-batches, then join neighbours that fit into one.

    Args:
        rows: the rows of each trial's batch, one sequence a trial.
        tokens_per_pass: most tokens of a micro-batch, with padding, a shared prefix once; a longer row goes alone.
        padded: whether the model takes padded rows.
        share: whether rows of a batch share the prefixes that they have in common.

    Returns:
        As few micro-batches as possible, of similar size, in which the rows of a trial are neighbours. Each micro-batch
        adds to the weight gradients of its trials once, so few are better; a small last one would leave the matrix
        units half idle.
    """
    known = [with_prefix_groups(trial_rows) if share else trial_rows for trial_rows in rows]
    most = _plan(known, tokens_per_pass=tokens_per_pass, padded=padded)
    if len(most) < 2:
        return most
    least = _computed(most, padded=padded)
    even = max(1, least // len(most))
    for budget in range(even, tokens_per_pass, max(1, (tokens_per_pass - even) // _BUDGETS)):
        plan = _plan(known, tokens_per_pass=budget, padded=padded)
        # a smaller budget may split a prefix group, whose prefix is then computed twice
        if len(plan) == len(most) and _computed(plan, padded=padded) <= least:
            return plan
    return most


def _computed(microbatches: Sequence[Sequence[MicroBatchRow]], *, padded: bool) -> int:
    return sum(microbatch_tokens(microbatch, padded=padded) for microbatch in microbatches)


def _plan(rows: Sequence[Sequence[MicroBatchRow]], *, tokens_per_pass: int, padded: bool) -> list[list[MicroBatchRow]]:
    microbatches: list[list[MicroBatchRow]] = []
    for trial_rows in rows:
        for part in _cut(trial_rows, tokens_per_pass=tokens_per_pass, padded=padded):
            if microbatches and microbatch_tokens(microbatches[-1] + part, padded=padded) <= tokens_per_pass:
                microbatches[-1].extend(part)
            else:
                microbatches.append(part)
    return microbatches


def with_prefix_groups(rows: Sequence[MicroBatchRow]) -> list[MicroBatchRow]:
    """Return the rows of a batch with their prefix groups, which do not depend on the micro-batches."""
    found = list(rows)
    for prefix_group in find_prefix_groups([row.example.input_ids for row in rows]):
        for i in prefix_group.rows:
            found[i] = replace(rows[i], prefix_group=prefix_group)
    return found


def microbatch_tokens(rows: Sequence[MicroBatchRow], *, padded: bool) -> int:
    """Return the tokens that a micro-batch of these rows computes: padding, if any, and each shared prefix once."""
    if padded:
        return len(rows) * max(row.example.n_tokens for row in rows)
    prefix_groups = {(row.adapter, row.prefix_group) for row in rows}
    prefixes = sum(prefix_group.shared for _, prefix_group in prefix_groups if prefix_group is not None)
    return prefixes + sum(row.example.n_tokens - row.shared for row in rows)


def _cut(rows: Sequence[MicroBatchRow], *, tokens_per_pass: int, padded: bool) -> list[list[MicroBatchRow]]:
    """Split one trial's rows: prefix groups in the order of their longest row, and longest rows first in each.

    A prefix group that fits into a micro-batch is not split.
    """

    def fits(chosen: Sequence[MicroBatchRow]) -> bool:
        return microbatch_tokens(chosen, padded=padded) <= tokens_per_pass

    groups: dict[PrefixGroup | int, list[MicroBatchRow]] = {}
    for i, row in sorted(enumerate(rows), key=lambda pair: -pair[1].example.n_tokens):
        groups.setdefault(row.prefix_group or i, []).append(row)
    microbatches: list[list[MicroBatchRow]] = []
    current: list[MicroBatchRow] = []
    for together in groups.values():
        if current and fits(together) and not fits(current + together):
            microbatches.append(current)
            current = []
        for row in together:
            if current and not fits([*current, row]):
                microbatches.append(current)
                current = []
            current.append(row)
    return [*microbatches, current] if current else microbatches
