"""How the rows of a step's trials are cut into passes through the model."""

from collections.abc import Sequence
from dataclasses import replace

from lorascope.engine.forward import FrozenModel, PassRow
from lorascope.modeling.packing.prefixes import Family, find_families
from lorascope.spec.schema import StudySpec

_BUDGETS = 8
"""Smaller budgets that are tried for passes of the same size."""


def shares_prefixes(frozen: FrozenModel, spec: StudySpec, *, training: bool) -> bool:
    """Say whether rows of a batch share the prefixes they have in common."""
    exact = not training or spec.lora_dropout == 0
    return frozen.can_share and (spec.share_prefixes == "always" or (spec.share_prefixes == "exact" and exact))


def plan_passes(
    rows: Sequence[Sequence[PassRow]], *, tokens_per_pass: int, padded: bool, share: bool
) -> list[list[PassRow]]:
    """Cut each trial's rows into passes, then join neighbours that fit into one.

    Args:
        rows: the rows of each trial's batch, one sequence a trial.
        tokens_per_pass: most tokens of a pass, padding counted and a shared prefix counted once; a longer row goes
            alone.
        padded: whether the model takes padded rows.
        share: whether rows of a batch share the prefixes they have in common.

    Returns:
        As few passes as there can be, of much the same size, in which the rows of a trial are neighbours. Few passes a
        trial keep its weight gradients from being added up more often than needed; a small last pass would leave the
        matrix units half idle.
    """
    known = [with_families(trial_rows) if share else trial_rows for trial_rows in rows]
    most = _plan(known, tokens_per_pass=tokens_per_pass, padded=padded)
    if len(most) < 2:
        return most
    least = _computed(most, padded=padded)
    even = max(1, least // len(most))
    for budget in range(even, tokens_per_pass, max(1, (tokens_per_pass - even) // _BUDGETS)):
        plan = _plan(known, tokens_per_pass=budget, padded=padded)
        # a smaller budget may cut a family, whose prefix is then computed twice
        if len(plan) == len(most) and _computed(plan, padded=padded) <= least:
            return plan
    return most


def _computed(passes: Sequence[Sequence[PassRow]], *, padded: bool) -> int:
    return sum(pass_tokens(one_pass, padded=padded) for one_pass in passes)


def _plan(rows: Sequence[Sequence[PassRow]], *, tokens_per_pass: int, padded: bool) -> list[list[PassRow]]:
    passes: list[list[PassRow]] = []
    for trial_rows in rows:
        for part in _cut(trial_rows, tokens_per_pass=tokens_per_pass, padded=padded):
            if passes and pass_tokens(passes[-1] + part, padded=padded) <= tokens_per_pass:
                passes[-1].extend(part)
            else:
                passes.append(part)
    return passes


def with_families(rows: Sequence[PassRow]) -> list[PassRow]:
    """Name the family of each row of a batch; which rows share is settled before passes are cut."""
    found = list(rows)
    for family in find_families([row.example.input_ids for row in rows]):
        for i in family.rows:
            found[i] = replace(rows[i], family=family)
    return found


def pass_tokens(rows: Sequence[PassRow], *, padded: bool) -> int:
    """Count what a pass of these rows computes: padding, if any, and each shared prefix once."""
    if padded:
        return len(rows) * max(row.example.n_tokens for row in rows)
    families = {(row.adapter, row.family) for row in rows}
    prefixes = sum(family.shared for _, family in families if family is not None)
    return prefixes + sum(row.example.n_tokens - row.shared for row in rows)


def _cut(rows: Sequence[PassRow], *, tokens_per_pass: int, padded: bool) -> list[list[PassRow]]:
    """Cut one trial's rows, families in the order of their longest row, and longest rows first inside each.

    A family that fits into a pass is not cut.
    """

    def fits(chosen: Sequence[PassRow]) -> bool:
        return pass_tokens(chosen, padded=padded) <= tokens_per_pass

    kin: dict[Family | int, list[PassRow]] = {}
    for i, row in sorted(enumerate(rows), key=lambda pair: -pair[1].example.n_tokens):
        kin.setdefault(row.family or i, []).append(row)
    passes: list[list[PassRow]] = []
    current: list[PassRow] = []
    for together in kin.values():
        if current and fits(together) and not fits(current + together):
            passes.append(current)
            current = []
        for row in together:
            if current and not fits([*current, row]):
                passes.append(current)
                current = []
            current.append(row)
    return [*passes, current] if current else passes
