"""Held-out evaluation: the nats of every example."""

import time
from collections.abc import Callable, Sequence

import torch

from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import shares_prefixes, split_rows
from lorascope.engine.oom import retry_smaller_on_oom
from lorascope.spec.schema import StudySpec


def example_nats(
    frozen: FrozenModel,
    adapter: int,
    examples: Sequence[Example],
    spec: StudySpec,
    *,
    check_stop: Callable[[], None],
) -> tuple[tuple[float, ...], float]:
    """Return the nats of each example, summed over its targets, under one adapter, and the seconds it took.

    Args:
        frozen: the prepared model.
        adapter: index of the adapter, or ``BASE_ONLY``.
        examples: held-out rows.
        spec: the study; says how rows are split into micro-batches and whether they share prefixes.
        check_stop: raises when the run should stop.
    """
    start = time.perf_counter()
    rows = [MicroBatchRow(example=example, adapter=adapter) for example in examples]
    order = {id(row.example): place for place, row in enumerate(rows)}
    nats = [0.0] * len(rows)
    share = shares_prefixes(frozen, spec, training=False)

    def add_nats(tokens_per_pass: int) -> None:
        for microbatch in split_rows(frozen, [rows], tokens_per_pass=tokens_per_pass, share=share):
            check_stop()
            with torch.no_grad():
                sums = torch.stack([row.sum() for row in frozen.row_nats(microbatch, check_stop=check_stop)]).tolist()
            for row, value in zip(microbatch, sums, strict=True):
                nats[order[id(row.example)]] = value

    retry_smaller_on_oom(frozen.limit, spec.tokens_per_pass, [example.n_tokens for example in examples], add_nats)
    return tuple(nats), time.perf_counter() - start
