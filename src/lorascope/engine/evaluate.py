"""Held-out evaluation: the nats of every example."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel, MicroBatchRow
from lorascope.engine.microbatch import shares_prefixes, split_rows
from lorascope.engine.oom import retry_smaller_on_oom
from lorascope.spec.schema import StudySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleScores:
    """What one evaluation found, example by example."""

    nats: tuple[float, ...]
    """Summed over each example's targets."""
    correct_tokens: tuple[int, ...] | None
    """Targets that were the likeliest token; None where they were not counted."""
    seconds: float
    """Of the whole evaluation."""


def example_nats(
    frozen: FrozenModel,
    adapter: int,
    examples: Sequence[Example],
    spec: StudySpec,
    *,
    check_stop: Callable[[], None],
) -> tuple[tuple[float, ...], float]:
    """Return the nats of each example and the seconds it took; see ``evaluate``."""
    found = evaluate(frozen, adapter, examples, spec, check_stop=check_stop)
    return found.nats, found.seconds


def evaluate(
    frozen: FrozenModel,
    adapter: int,
    examples: Sequence[Example],
    spec: StudySpec,
    *,
    check_stop: Callable[[], None],
    count_correct: bool = False,
) -> ExampleScores:
    """Evaluate each example under one adapter.

    Args:
        frozen: the prepared model.
        adapter: index of the adapter, or ``BASE_ONLY``.
        examples: held-out rows.
        spec: the study; says how rows are split into micro-batches and whether they share prefixes.
        check_stop: raises when the run should stop.
        count_correct: count the targets that are the likeliest token as well, which reads the logits once more.
    """
    start = time.perf_counter()
    rows = [MicroBatchRow(example=example, adapter=adapter) for example in examples]
    order = {id(row.example): place for place, row in enumerate(rows)}
    nats, correct = [0.0] * len(rows), [0] * len(rows)
    share = shares_prefixes(frozen, spec, training=False)

    def add_scores(tokens_per_pass: int) -> None:
        for microbatch in split_rows(frozen, [rows], tokens_per_pass=tokens_per_pass, share=share):
            check_stop()
            hits: list[torch.Tensor] | None = [] if count_correct else None
            with torch.no_grad():
                found = frozen.row_nats(microbatch, check_stop=check_stop, hits=hits)
            places = [order[id(row.example)] for row in microbatch]
            for place, value in zip(places, torch.stack([row.sum() for row in found]).tolist(), strict=True):
                nats[place] = value
            if hits is not None:
                for place, row_hits in zip(places, hits, strict=True):
                    correct[place] = int(row_hits.sum())

    retry_smaller_on_oom(frozen.limit, spec.tokens_per_pass, [example.n_tokens for example in examples], add_scores)
    counted = tuple(correct) if count_correct else None
    return ExampleScores(nats=tuple(nats), correct_tokens=counted, seconds=time.perf_counter() - start)
