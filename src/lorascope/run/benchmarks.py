"""Benchmarks of EleutherAI's harness: each document's score of the base and of every seed of each rank."""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope.engine.generate import routed
from lorascope.engine.oom import is_out_of_memory
from lorascope.errors import LorascopeError
from lorascope.message import Message
from lorascope.modeling.adapters.peft_io import read_updates
from lorascope.modeling.load import quiet
from lorascope.modeling.packing.packed_layout import BASE_ONLY
from lorascope.records import BASE_MODEL, Arm, HarnessTask, ScoreRecord
from lorascope.run.adapters import attach_updates
from lorascope.run.context import RunContext
from lorascope.run.scores import allows_share
from lorascope.scoring.harness import LoadedTask, prepare, silent_harness
from lorascope.scoring.scorer import ScoreError, checked
from lorascope.search.work import HARNESS_BATCH, harness_work


class _TaskFailedError(Exception):
    """The harness cannot evaluate a task with this model."""


def run_benchmarks(
    run: RunContext, pending: Sequence[tuple[HarnessTask, tuple[str, ...]]], arms: Mapping[str, Arm]
) -> None:
    """Store the scores of documents, task by task and trial by trial; fewer where the time is short.

    Args:
        run: the study; its adapters are detached afterwards, or those of a trial are attached.
        pending: tasks, each with the trials that are to answer its documents, or ``BASE_MODEL``.
        arms: of each trial.
    """
    loaded, began = {one.record.name: one for one in run.study.benchmarks}, time.perf_counter()
    for task, trial_ids in pending:
        for number, trial_id in enumerate(trial_ids):
            run.check_stop()
            rest = harness_work(run.progress.sizes, task, map(arms.get, trial_ids[number:]))
            if not allows_share(run, run.progress.seconds("lm_eval", rest), time.perf_counter() - began):
                run.leave_out("lm_eval", f"benchmarks from {task.task} on")
                run.progress.expect({"lm_eval": 0.0})
                return
            run.tracker.phase(f"benchmark {task.task}: {trial_id or 'the base'}, {task.documents:,} documents")
            try:
                run.store.put_all(list(_scores(run, loaded[task.name], trial_id)))
            except _TaskFailedError as error:
                run.tracker.note(f"benchmark {task.task} failed with {trial_id or 'the base'}: {error}")
                break
            run.progress.lap("lm_eval", harness_work(run.progress.sizes, task, [arms.get(trial_id)]))
    run.progress.expect({"lm_eval": 0.0})


def _scores(run: RunContext, loaded: LoadedTask, trial_id: str) -> Iterator[ScoreRecord]:
    """Yield the score of each document.

    Raises:
        _TaskFailedError: the harness fails.
    """
    record = loaded.record
    if trial_id == BASE_MODEL:
        run.study.frozen.attach([])
    else:
        attach_updates(run, trial_id, read_updates(run.folder.trial_adapter(trial_id)))
    try:
        samples = _evaluate(run, loaded, BASE_ONLY if trial_id == BASE_MODEL else 0)
    except (LorascopeError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _TaskFailedError(f"{type(error).__name__}: {str(error)[:300]}") from error
    for sample in samples:
        score, problem = None, None
        try:
            score = checked(record.metric, sample[record.metric])
        except (KeyError, ScoreError) as error:
            problem = Message("verbatim", text=str(error)[:300])
        yield ScoreRecord(
            trial_id=trial_id,
            metric=record.name,
            place=sample["doc_id"] + 1,
            score=score,
            error=problem,
            max_new_tokens=0,
            fingerprint=record.fingerprint,
        )


def _evaluate(run: RunContext, loaded: LoadedTask, adapter: int) -> list[dict[str, Any]]:
    """Let the harness evaluate a task; return what it logs of each document under the task's first filter."""
    from lm_eval.evaluator import evaluate  # noqa: PLC0415 - an extra
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    frozen, name = run.study.frozen, loaded.task.task_name
    generates = loaded.record.new_tokens > 0
    # likelihoods need the logits of all tokens, which are large on a machine whose memory is small
    together = HARNESS_BATCH if not frozen.alone and (generates or frozen.device.type != "cpu") else 1
    model: Any = frozen.model
    frozen.set_attention(frozen.own_attention)
    prepare(loaded.task)
    with quiet(), silent_harness(), routed(frozen, [adapter], run.check_stop):
        model.tie_weights = lambda *_, **__: None  # they are tied where they should be
        try:
            harness = HFLM(
                pretrained=model, backend="causal", tokenizer=copy.deepcopy(run.study.tokenizer), batch_size=together
            )
            found = evaluate(
                harness, {"tasks": {name: loaded.task}}, limit=loaded.record.limit, bootstrap_iters=0, log_samples=True
            )
        finally:
            del model.tie_weights
    samples: list[dict[str, Any]] = found["samples"][name]
    return [one for one in samples if one["filter"] == samples[0]["filter"]]
