"""Micro-batches of a study's steps and evaluations, planned from its rows by the engine's own code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean

import numpy as np

from lorascope.costmodel.cost_types import MicroBatch, Step
from lorascope.data.dataset import Example
from lorascope.data.forgetting_text import WINDOW_TOKENS, WINDOWS
from lorascope.data.row_order import step_rows, total_steps
from lorascope.engine.forward import MicroBatchRow
from lorascope.engine.microbatch import plan_microbatches
from lorascope.errors import InputError
from lorascope.modeling.load import ModelSource, load_tokenizer
from lorascope.modeling.packing.length_buckets import LONG_ROW
from lorascope.modeling.packing.packed_layout import SLOT_MULTIPLE
from lorascope.records import Arm
from lorascope.search.allocation import Pace
from lorascope.search.work import Sizes
from lorascope.spec.fields.rows import FILE_SUFFIXES, data_suffix
from lorascope.spec.schema import StudySpec

_MAX_DATASET_BYTES = 10_000_000
"""Larger data sets are not tokenised for a plan."""


def sample_steps(
    spec: StudySpec, examples: Sequence[Example], steps: Sequence[int], *, adapters: int, padded: bool, kernels: bool
) -> tuple[Step, ...]:
    """Plan the micro-batches of some steps.

    Args:
        spec: the study.
        examples: its training rows.
        steps: which steps, counted from 0.
        adapters: trials of the group, all on the same rows.
        padded: True if rows are padded rather than packed.
        kernels: True if the compiled kernels compute, which shared prefixes need.
    """
    share = kernels and not padded and _shares(spec, training=True)
    scores = not kernels and not padded
    found = []
    for step in steps:
        rows = [examples[row] for row in step_rows(spec, len(examples), seed=spec.seeds[0], step=step)]
        found.append(_step(spec, rows, adapters=adapters, padded=padded, share=share, scores=scores))
    return tuple(found)


def evaluation_microbatches(
    spec: StudySpec, examples: Sequence[Example], *, padded: bool, kernels: bool
) -> tuple[MicroBatch, ...]:
    """Plan the micro-batches of an evaluation."""
    share = kernels and not padded and _shares(spec, training=False)
    return _step(spec, examples, adapters=1, padded=padded, share=share, scores=False).microbatches


def assumed_rows(n_rows: int, length: int) -> tuple[Example, ...]:
    """Make rows of one length for data that is not read: all tokens are targets, and no two rows share a prefix."""
    mask = np.ones(length, dtype=bool)
    mask[0] = False
    return tuple(Example(input_ids=np.full(length, row), target_mask=mask) for row in range(n_rows))


def _shares(spec: StudySpec, *, training: bool) -> bool:
    exact = not training or spec.lora_dropout == 0
    return spec.share_prefixes == "always" or (spec.share_prefixes == "exact" and exact)


def _step(spec: StudySpec, rows: Sequence[Example], *, adapters: int, padded: bool, share: bool, scores: bool) -> Step:
    trials = [[MicroBatchRow(example=row, adapter=adapter) for row in rows] for adapter in range(adapters)]
    microbatches = plan_microbatches(trials, tokens_per_pass=spec.tokens_per_pass, padded=padded, share=share)
    return Step(
        microbatches=tuple(_microbatch(one, adapters=adapters, padded=padded, scores=scores) for one in microbatches),
        tokens=sum(row.n_tokens for row in rows),
    )


def _microbatch(rows: Sequence[MicroBatchRow], *, adapters: int, padded: bool, scores: bool) -> MicroBatch:
    slots = [0] * adapters
    longest = max(row.example.n_tokens for row in rows)
    for adapter, own in groupby(rows, key=lambda row: row.adapter):
        slots[adapter] = _slots(list(own), longest=longest, padded=padded)
    lengths = [longest if padded else row.example.n_tokens for row in rows]
    return MicroBatch(
        slots=tuple(slots),
        targets=sum(row.example.n_targets for row in rows),
        squared_lengths=sum(length**2 for length in lengths),
        # longer rows use Torch's fused attention, which saves no scores
        kept_scores=sum(length**2 for length in lengths if length <= LONG_ROW) if scores else 0,
    )


def _slots(rows: Sequence[MicroBatchRow], *, longest: int, padded: bool) -> int:
    if padded:
        return len(rows) * longest
    prefix_groups = {row.prefix_group for row in rows if row.prefix_group is not None}
    slots = sum(prefix_group.shared for prefix_group in prefix_groups) + sum(
        row.example.n_tokens - row.shared for row in rows
    )
    return slots + -slots % SLOT_MULTIPLE


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRows:
    """Rows that a plan is made for."""

    train: Sequence[Example]
    eval: Sequence[Example]
    total_steps: int | None
    source: str
    """Source of their lengths."""
    further: int = 0
    """Held-out rows that a sequential study has beyond ``eval``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Predicted work of a study and the pace of it."""

    sizes: Sizes
    pace: Pace
    eval_target_tokens: float
    """Mean target tokens of a held-out row."""
    further_rows: int
    """Held-out rows that a sequential study has beyond those that training is evaluated on."""


def planned_workload(
    rows: PlannedRows,
    steps: Sequence[Step],
    arm: Arm,
    *,
    step_seconds: float,
    evaluation_seconds: float,
    shares: Mapping[str, float],
) -> Workload:
    """Return the work of a study and its pace.

    Args:
        rows: held-out rows and the number of steps included.
        steps: some of them.
        arm: a rank in a set of target modules, which the seconds are those of.
        step_seconds: of its mean step.
        evaluation_seconds: of one evaluation.
        shares: parameters of an adapter of rank 1, divided by the base's, by set of target modules.
    """
    assert rows.total_steps is not None
    sizes = Sizes(
        total_steps=rows.total_steps,
        step_tokens=fmean(step.tokens for step in steps),
        heaviest_tokens=max(step.tokens for step in steps),
        eval_tokens=sum(row.n_tokens for row in rows.eval),
        eval_examples=len(rows.eval),
        text_tokens=WINDOWS * WINDOW_TOKENS,
        adapter_share=shares,
    )
    pace = Pace(training=step_seconds / sizes.train_step(arm), evaluation=evaluation_seconds / sizes.evaluation(arm))
    targets = fmean(row.n_targets for row in rows.eval)
    return Workload(sizes=sizes, pace=pace, eval_target_tokens=targets, further_rows=rows.further)


def planned_rows(spec: StudySpec, source: ModelSource, gguf_file: str | None, longest: int) -> PlannedRows:
    """Tokenise the study's rows if they and a tokenizer are local and small, else assume rows of maximal length."""
    for name, split in zip(spec.dataset_names, spec.for_each(spec.split), strict=True):
        if not Path(name).expanduser().exists() and data_suffix(name) in FILE_SUFFIXES:
            from lorascope.data.sources.load import load_rows  # noqa: PLC0415 - datasets takes a second to import

            load_rows(name, split)  # raises that there is no such file
    if Path(source.path).is_dir() and all(map(_is_small, spec.dataset_names)):
        try:
            tokenizer = load_tokenizer(source, gguf_file)
        except InputError:
            tokenizer = None
        if tokenizer is not None:
            from lorascope.data.prepare import prepare  # noqa: PLC0415 - datasets takes a second to import

            splits = prepare(spec, tokenizer)
            steps = total_steps(spec, len(splits.train))
            return PlannedRows(
                train=splits.train,
                eval=splits.eval,
                total_steps=steps,
                source="the rows themselves",
                further=len(splits.spare),
            )
    length = min(spec.max_length, longest)
    rows = assumed_rows(spec.per_device_train_batch_size * spec.gradient_accumulation_steps, length)
    return PlannedRows(
        train=rows,
        eval=assumed_rows(spec.eval_examples, length) if spec.eval_examples else (),
        total_steps=spec.max_steps,
        source=f"assumed: {length} tokens each",
    )


def _is_small(dataset: str) -> bool:
    path = Path(dataset).expanduser()
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) <= _MAX_DATASET_BYTES
    return dataset.startswith("builtin:") or (path.is_file() and path.stat().st_size <= _MAX_DATASET_BYTES)
