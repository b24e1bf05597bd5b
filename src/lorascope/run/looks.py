"""Looks of a sequential study: losses on further held-out rows, and what follows from all losses so far."""

import math
from collections.abc import Sequence
from dataclasses import replace

from lorascope.analysis.study_data import by_trial, read_study
from lorascope.analysis.verdict.next_look import measured_prices, next_look
from lorascope.engine.evaluate import evaluate
from lorascope.modeling.adapters.peft_io import read_updates
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.records import BASE_MODEL, FurtherEvalRecord, LookRecord, TrialRecord
from lorascope.run.adapters import attach_updates
from lorascope.run.context import RunContext
from lorascope.search.sequential import goes_on, pending_rows


def take_look(run: RunContext) -> bool:
    """Evaluate the rows that the last look asked for, look again, and return True where the study goes on.

    Where the time ends before all rows are evaluated, the last look is taken anew, as nothing can follow it.
    """
    looks = run.store.read(LookRecord)
    if not goes_on(looks):
        return False
    in_time = not looks or _evaluate_rows(run, looks[-1])
    run.tracker.phase("looking at the losses so far")
    data, seconds_left = read_study(run.store, run.study.spec), run.clock.left_for_training
    if not in_time:
        data, seconds_left = replace(data, looks=data.looks[:-1]), -math.inf
    rows = len(run.study.splits.eval) + len(run.study.splits.spare)
    look = next_look(data, rows=rows, prices=measured_prices(data), seconds_left=seconds_left)
    run.store.put(look)
    run.progress.expect({"further_rows": _work(run, _pending(run, look), look)})
    run.progress.lap("looks")
    run.tracker.look(look)
    return goes_on([look])


def evaluate_base(run: RunContext) -> None:
    """Evaluate the base model on the further rows of the last look, where it was not and the time allows it."""
    held, further = len(run.study.splits.eval), by_trial(run.store.read(FurtherEvalRecord)).get(BASE_MODEL, ())
    first = held + sum(len(record.example_nats) for record in further)
    last = run.store.read(LookRecord)[-1].rows
    tokens = sum(row.n_tokens for row in run.study.splits.spare[first - held : last - held])
    if tokens and run.allows("further_rows", tokens):
        run.tracker.phase("evaluating the base on further rows")
        _evaluate(run, BASE_MODEL, BASE_ONLY, first, last)
        run.progress.lap("further_rows")


def _evaluate_rows(run: RunContext, look: LookRecord) -> bool:
    """Evaluate trained adapters on the held-out rows that they lack, and return True where the time allowed all.

    Each result is stored when it is there.
    """
    pending = _pending(run, look)
    try:
        for number, one in enumerate(pending, 1):
            if not run.allows("further_rows", _work(run, [one], look)):
                return False
            run.tracker.phase(f"evaluating on further rows: adapter {number} of {len(pending)}")
            trial, first = one
            attach_updates(run, trial.trial_id, read_updates(run.folder.trial_adapter(trial.trial_id)))
            _evaluate(run, trial.trial_id, 0, first, _last_row(look))
            run.progress.lap("further_rows", _work(run, [one], look))
    finally:
        run.study.frozen.attach([])
    return True


def _pending(run: RunContext, look: LookRecord) -> list[tuple[TrialRecord, int]]:
    return pending_rows(
        run.study.spec,
        look,
        len(run.study.splits.eval),
        by_trial(run.store.read(FurtherEvalRecord)),
        [name for name, outcome in run.store.outcomes().items() if outcome.state == "finished"],
    )


def _work(run: RunContext, pending: Sequence[tuple[TrialRecord, int]], look: LookRecord) -> float:
    """Return the work of evaluating these trials on the rows that each lacks."""
    held = len(run.study.splits.eval)
    return sum(
        run.progress.sizes.token(trial.arm)
        * sum(row.n_tokens for row in run.study.splits.spare[first - held : _last_row(look) - held])
        for trial, first in pending
    )


def _last_row(look: LookRecord) -> int:
    return look.next_value if look.next == "rows" else look.rows


def _evaluate(run: RunContext, trial_id: str, adapter: int, first: int, last: int) -> None:
    held = len(run.study.splits.eval)
    rows = run.study.splits.spare[first - held : last - held]
    found = evaluate(run.study.frozen, adapter, rows, run.study.spec, check_stop=run.check_stop, count_correct=True)
    run.store.put(
        FurtherEvalRecord(
            trial_id=trial_id,
            first_row=first,
            example_nats=found.nats,
            example_target_tokens=tuple(row.n_targets for row in rows),
            example_correct_tokens=found.correct_tokens,
            seconds=found.seconds,
        )
    )
