"""Tables of several sets of target modules: each set's answer, and the sets compared with each other."""

from lorascope.analysis.estimates.paired import LEVEL
from lorascope.analysis.summary import SetComparisonSection, TargetSetsSection
from lorascope.text.language import tr
from lorascope.text.numbers import chance, format_count
from lorascope.text.tables.table import Table, interval_cell, loss_cell, make_table, optional


def sets_table(sets: TargetSetsSection) -> Table:
    """Show the rank that each set's recommendation names."""
    parts = [(one, {part.rank: part for part in one.summary.ranks}) for one in sets.sets]
    named = [(one.name, ranks.get(one.summary.recommendation.use.rank or 0)) for one, ranks in parts]
    return make_table(
        named,
        [None] * len(named),
        (tr("target modules"), lambda row: row[0]),
        (tr("rank to use"), lambda row: optional(row[1].rank if row[1] else None, str)),
        (tr("parameters"), lambda row: optional(row[1].trainable_parameters if row[1] else None, format_count)),
        (tr("held-out loss"), lambda row: loss_cell(row[1].eval_loss if row[1] else None)),
    )


def comparison_table(sets: TargetSetsSection) -> Table:
    """Show every comparison of two sets; no rows before they can be compared."""
    note = tr(
        "Loss of the first minus that of the second, paired by held-out row and seed. At equal parameters: ranks whose "
        "adapters are nearest in size, by a factor of at most {near:g}. Intervals and p-values allow for the choice of "
        "these pairs among all ranks of the sets.",
        near=sets.near,
    )
    if sets.seeds == 1:
        note = f"{note} {tr('With one seed, in that seed only.')}"
    return make_table(
        sets.comparisons,
        [None] * len(sets.comparisons),
        (tr("first"), lambda one: _arm(one.first, one.first_rank, one.first_parameters)),
        (tr("second"), lambda one: _arm(one.second, one.second_rank, one.second_parameters)),
        (tr("compared at"), lambda one: tr("equal parameters") if one.equal_parameters else tr("rank to use")),
        (tr("difference (95% interval)"), lambda one: interval_cell(one.difference, one.difference_ci95)),
        (tr("differ"), _differ),
        note=note,
    )


def comparison_lines(sets: TargetSetsSection) -> list[str]:
    """Write every comparison of two sets on a line, for the terminal."""
    return [
        f"{one.first} r{one.first_rank} - {one.second} r{one.second_rank}"
        f"{', equal parameters' if one.equal_parameters else ''}: "
        f"{one.difference:+.3f} ({one.difference_ci95[0]:+.3f} to {one.difference_ci95[1]:+.3f}), {chance(one.p)}"
        for one in sets.comparisons
    ]


def _arm(name: str, rank: int, parameters: int | None) -> str:
    size = optional(parameters, format_count)
    return tr("{targets}, rank {rank} ({parameters} parameters)", targets=name, rank=rank, parameters=size)


def _differ(one: SetComparisonSection) -> str:
    p = chance(one.p)
    return tr("shown ({p})", p=p) if one.p <= LEVEL else tr("not shown ({p})", p=p)
