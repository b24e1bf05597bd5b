"""Prepare a study: everything that can refuse it, before anything expensive starts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Thread

import torch
from transformers import PreTrainedTokenizerBase

from lorascope.analysis.dropped_rows import dropped_rows
from lorascope.data.dataset import Examples, Splits
from lorascope.data.forgetting_text import ForgettingText, read_forgetting_text
from lorascope.data.prepare import fix_date, prepare
from lorascope.data.row_order import total_steps
from lorascope.data.row_tests import row_tests
from lorascope.data.sample_prompts import PromptTokens, sample_prompts
from lorascope.data.shown_rows import SHOWN, shown_rows
from lorascope.data.target_bytes import target_bytes
from lorascope.engine.forward import FrozenModel
from lorascope.engine.verify import CheckedModel, Reasons, check_model
from lorascope.errors import InputError
from lorascope.measure.environment import limit_threads, usable_cores
from lorascope.message import Message
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.backends.registry import load_fast_backend
from lorascope.modeling.base import BaseModel, load_base
from lorascope.modeling.device_dtype import resolve_device
from lorascope.modeling.end_tokens import end_token_ids
from lorascope.modeling.load import ModelSource, check_source, load_tokenizer, locate_model
from lorascope.modeling.quantisation import base_bytes, count_parameters
from lorascope.records import ResolvedStudy, ShownRow
from lorascope.run.trackers import Tracker
from lorascope.scoring.harness import LoadedTask, load_tasks
from lorascope.scoring.names import PYTHON_TESTS
from lorascope.scoring.registry import load_scorers
from lorascope.scoring.scorer import ScoredRow, Scorer, try_scorers
from lorascope.spec.schema import StudySpec
from lorascope.text.say import say


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedStudy:
    """A study that can start."""

    spec: StudySpec
    """With the date that its rows print."""
    resolved: ResolvedStudy
    shown: tuple[ShownRow, ...]
    prompts: tuple[PromptTokens, ...]
    """Held-out prompts that base and adapters answer."""
    scorers: tuple[Scorer, ...]
    """Metrics of their answers."""
    scored_rows: Mapping[int, ScoredRow]
    """What answers are compared with, by the prompt's place; rows without a completion of their own are not there."""
    benchmarks: tuple[LoadedTask, ...]
    """Tasks of the harness whose documents base and adapters answer."""
    splits: Splits
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    forgetting_text: ForgettingText | None
    frozen: FrozenModel
    target_sets: Mapping[str, tuple[str, ...]]
    """Full names of the layers of each set, by the set's name; a single set has the empty name."""
    source: ModelSource
    device: torch.device

    def layers_of(self, targets: str) -> dict[str, MultiLoraLinear]:
        """Return the adapted layers of a set of target modules."""
        return {name: self.frozen.layers[name] for name in self.target_sets[targets]}


def prepare_study(spec: StudySpec, before: ResolvedStudy | None, tracker: Tracker) -> PreparedStudy:
    """Load rows and model and make every automatic choice: rows, then the model, then the checked model.

    Args:
        spec: the study.
        before: the run that is continued: its precision, packing and kernels are kept, its rows and weights must be
            the same. None for a new study.
        tracker: told of each phase.

    Raises:
        InputError: anything about model, rows, targets or ranks that cannot be used.
    """
    limit_threads()
    scorers = load_scorers(spec.metrics)
    device = resolve_device(spec.device)
    # kernels that are not compiled yet are compiled while model and rows are read
    compiling = Thread(target=load_fast_backend, args=(device,), daemon=True)
    if spec.kernels:
        compiling.start()
    if spec.lm_eval:
        tracker.phase("loading benchmarks")
    benchmarks = load_tasks(spec.lm_eval, spec.lm_eval_limit)
    tracker.phase("reading the tokenizer")
    source = replace(locate_model(spec.model, trust_remote_code=spec.trust_remote_code), quantize=spec.quantize)
    tokenizer = load_tokenizer(source)
    check_source(source, spec.model)
    tracker.phase("reading the rows")

    def tell(done: int, total: int) -> None:
        tracker.phase(f"tokenising the rows: {done:,} of {total:,}")

    spec = fix_date(spec, tokenizer)
    ends = end_token_ids(source)
    before_hash = before.data_hash if before else None
    splits = prepare(spec, tokenizer, end_ids=ends, processes=usable_cores(), tell=tell, before_hash=before_hash)
    for warning in dropped_rows(splits.notes):
        tracker.warning(say(warning))
    for note in splits.notes:
        tracker.note(say(note))
    prompts = sample_prompts(
        splits.eval, tokenizer, count=len(splits.eval) if scorers else spec.samples, seed=spec.split_seed
    )
    scored_rows = _scored_rows(spec, tokenizer, ends, splits, prompts) if scorers else {}
    try_scorers(scorers, list(scored_rows.values()))
    cut = _cut_answers(spec, prompts) if scorers else ()
    for note in cut:
        tracker.note(say(note))
    text = read_forgetting_text(spec, tokenizer)
    rows = (splits.train, Examples.of(splits.eval), Examples.of(text.windows if text else ()))
    tracker.phase("loading the model")
    dtype = before.dtype if before else spec.dtype
    base = load_base(source, rows, name=spec.model, dtype=dtype, device=device)
    tracker.phase("comparing ways to compute the model")
    if spec.kernels:
        compiling.join()
    checked = check_model(spec, base.model, splits.train, before)
    for note in checked.slower:
        tracker.note(say(note))
    resolved = replace(
        _resolve(spec, splits, base, checked, before), eval_target_bytes=target_bytes(splits.eval, tokenizer)
    )
    resolved = replace(resolved, data_notes=(*resolved.data_notes, *cut))
    return PreparedStudy(
        spec=spec,
        resolved=resolved,
        shown=shown_rows(splits.train[:SHOWN], tokenizer),
        prompts=prompts,
        scorers=scorers,
        scored_rows=scored_rows,
        benchmarks=benchmarks,
        splits=splits,
        tokenizer=tokenizer,
        end_ids=ends | {tokenizer.eos_token_id},
        forgetting_text=text,
        frozen=checked.frozen,
        target_sets=checked.target_sets,
        source=source,
        device=device,
    )


def _scored_rows(
    spec: StudySpec,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Collection[int],
    splits: Splits,
    prompts: Sequence[PromptTokens],
) -> dict[int, ScoredRow]:
    tests = row_tests(spec, tokenizer, splits.eval, end_ids=end_ids) if PYTHON_TESTS in spec.metrics else {}
    return {
        one.shown.place: ScoredRow(
            row=one.shown.row, prompt=one.shown.prompt, reference=one.shown.truth, tests=tests.get(one.shown.row)
        )
        for one in prompts
        if not one.shown.continued
    }


def _cut_answers(spec: StudySpec, prompts: Sequence[PromptTokens]) -> tuple[Message, ...]:
    """Say of how many rows the true answer is longer than answers may be."""
    lengths = [one.shown.truth_tokens for one in prompts if not one.shown.continued]
    longer = [length for length in lengths if length > spec.max_new_tokens]
    if not longer:
        return ()
    share = len(longer) / len(lengths)
    return (Message("metric.cut_answers", share=share, tokens=spec.max_new_tokens, longest=max(longer)),)


def _resolve(
    spec: StudySpec, splits: Splits, base: BaseModel, checked: CheckedModel, before: ResolvedStudy | None
) -> ResolvedStudy:
    """Record every choice. Raises InputError where they are not those of the run that is continued."""
    frozen, reasons = checked.frozen, checked.reasons
    resolved = ResolvedStudy(
        model=spec.model,
        dataset=" + ".join(spec.dataset_names),
        device=str(base.device),
        dtype=str(base.model.dtype).removeprefix("torch."),
        dtype_reason=before.dtype_reason if before else base.dtype_reason,
        packing=frozen.packing,
        packing_reason=reasons.packing,
        kernels=frozen.accelerated,
        kernels_reason=reasons.kernels,
        train_examples=len(splits.train),
        eval_examples=len(splits.eval),
        train_tokens=int(splits.train.n_tokens.sum()),
        train_target_tokens=int(splits.train.n_targets.sum()),
        eval_target_tokens=sum(example.n_targets for example in splits.eval),
        total_steps=total_steps(spec, len(splits.train)),
        base_parameters=count_parameters(base.model),
        base_bytes=base_bytes(base.model),
        target_modules=tuple(frozen.layers),
        data_hash=splits.data_hash,
        model_hash=base.sha256,
        eval_tokens=sum(example.n_tokens for example in splits.eval),
        data_notes=(*splits.notes, *checked.notes, *checked.slower, *base.notes),
    )
    if before is not None:
        if before.data_hash == splits.halves_hash:  # further held-out rows are added to it
            before = replace(before, data_hash=splits.data_hash)
        _check_same(before, resolved, checked.found)
    return resolved


def _check_same(before: ResolvedStudy, now: ResolvedStudy, found: Reasons) -> None:
    for what, old, new in (("rows", before.data_hash, now.data_hash), ("model", before.model_hash, now.model_hash)):
        if old != new:
            raise InputError(
                f"the {what} changed since this study began (hash {old[:12]}, now {new[:12]})",
                remedy=f"bring the {what} back, or start a new study with --out",
            )
    if before.device != now.device:
        raise InputError(
            f"this study began on {before.device}, and this run would use {now.device}",
            remedy=f"continue it with --device {before.device}, or start a new study with --out",
        )
    if before.packing != now.packing:
        raise InputError(
            f"this machine cannot pack the rows as the study's first run did ({say(found.packing)})",
            remedy="continue it where it began, or start a new study with --out",
        )
    if before.kernels != now.kernels:
        raise InputError(
            f"this study began with compiled kernels, and this machine has none ({say(found.kernels)})",
            remedy="continue it where it began, or start a new study with --out",
        )
