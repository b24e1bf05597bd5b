"""Held-out loss, kept for every example."""

import time
from collections.abc import Callable, Sequence

import torch

from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel, PassRow
from lorascope.engine.microbatch import plan_passes, shares_prefixes
from lorascope.engine.oom import with_room
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
        spec: the study; says how rows are cut into passes and whether they share prefixes.
        check_stop: raises when the run should stop.
    """
    start = time.perf_counter()
    order = {id(example): i for i, example in enumerate(examples)}
    nats = [0.0] * len(examples)
    rows = [PassRow(example=example, adapter=adapter) for example in examples]
    share = shares_prefixes(frozen, spec, training=False)

    def add_nats(tokens_per_pass: int) -> None:
        for one_pass in plan_passes([rows], tokens_per_pass=tokens_per_pass, padded=not frozen.packing, share=share):
            check_stop()
            with torch.no_grad():
                sums = torch.stack([row.sum() for row in frozen.row_nats(one_pass, check_stop=check_stop)]).tolist()
            for row, value in zip(one_pass, sums, strict=True):
                nats[order[id(row.example)]] = value

    with_room(frozen.limit, spec.tokens_per_pass, [example.n_tokens for example in examples], add_nats)
    return tuple(nats), time.perf_counter() - start
