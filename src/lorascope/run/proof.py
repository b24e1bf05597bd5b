"""Proof at the end of a study: PEFT loads each rank's adapter over the same base and gives the reported loss."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lorascope.data.dataset import Example
from lorascope.engine.forward import FrozenModel
from lorascope.engine.oom import is_out_of_memory
from lorascope.measure.memory import release_memory
from lorascope.message import Message
from lorascope.modeling.adapters.experts import MultiLoraExperts
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import ModuleToSave
from lorascope.modeling.adapters.peft_check import (
    PEFT_ERRORS,
    layers_left_out,
    loaded_by_peft,
    peft_is_installed,
)
from lorascope.modeling.load import quiet
from lorascope.records import Arm, PeftCheck
from lorascope.run.adapters import best_trials
from lorascope.run.context import RunContext
from lorascope.search.work import proof_work

_QUARTILES = (0.25, 0.5, 0.75)
"""Held-out rows of these lengths are compared."""


def prove_adapters(run: RunContext) -> None:
    """Compare the adapter that stands for each rank with what PEFT makes of its files; store what was found."""
    done = {check.trial_id for check in run.store.read(PeftCheck)}
    best = best_trials(run.folder, run.store)
    pending = {trial_id: arm for arm, trial_id in best.items() if trial_id not in done}
    run.progress.expect({"proof": proof_work(run.progress.sizes, pending.values())})
    if not pending:
        return
    if not peft_is_installed():
        run.progress.expect({"proof": 0.0})
        run.tracker.note("the adapters were not loaded with PEFT to compare losses, as it is not installed")
        return
    run.study.frozen.attach([])
    release_memory(run.study.device)
    try:
        with _plain(run.study.frozen) as model:
            _prove(run, model, pending)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        run.tracker.note(f"not all adapters could be loaded with PEFT, as memory ran out ({error})")


def _prove(run: RunContext, model: PreTrainedModel, pending: Mapping[str, Arm]) -> None:
    held_out = run.study.splits.eval
    by_length = sorted(range(len(held_out)), key=lambda row: held_out[row].n_tokens)
    rows = tuple(dict.fromkeys(by_length[int(share * len(by_length))] for share in _QUARTILES))
    work = proof_work(run.progress.sizes, pending.values()) / len(pending)
    examples = [held_out[row] for row in rows]
    run.tracker.phase("loading the adapters with PEFT")
    base = _row_nats(model, examples)
    for trial_id in pending:
        run.check_stop()
        if not run.allows("proof", work):
            run.leave_out("proof", "losses of adapters as PEFT loads them")
            run.progress.expect({"proof": 0.0})
            return
        folder = run.folder.trial_adapter(trial_id)
        nats, left_out, error = base, 0, None
        try:
            with loaded_by_peft(model, folder) as loaded:
                left_out = len(layers_left_out(model, folder))
                nats = _row_nats(loaded, examples)
        except PEFT_ERRORS as problem:
            if is_out_of_memory(problem):
                raise
            error = Message("verbatim", text=str(problem).split("\n", maxsplit=1)[0][:300])
        run.store.put(
            PeftCheck(trial_id=trial_id, rows=rows, base_nats=base, nats=nats, layers_left_out=left_out, error=error)
        )
        run.progress.lap("proof", work)


def _row_nats(model: nn.Module, rows: Sequence[Example]) -> tuple[float, ...]:
    """Return the nats of each row, alone in a forward pass of the model itself."""
    found, device = [], next(model.parameters()).device
    with torch.no_grad():
        for row in rows:
            ids, at = (torch.from_numpy(array).to(device) for array in (row.input_ids, row.target_mask.nonzero()[0]))
            logits = model(input_ids=ids[None], use_cache=False).logits[0, at - 1]
            wide = torch.promote_types(logits.dtype, torch.float32)
            found.append(F.cross_entropy(logits.to(wide), ids[at], reduction="sum").item())
    return tuple(found)


@contextmanager
def _plain(frozen: FrozenModel) -> Iterator[PreTrainedModel]:
    """Take the layers of this package, and the forwards of its backend, out of the model for a while."""
    model = frozen.model
    forwards = {
        module: forward
        for module in model.modules()
        if type(forward := vars(module).get("forward")).__module__.startswith("lorascope.")
    }
    for module in forwards:
        del module.forward
    wrappers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, MultiLoraLinear | MultiLoraExperts | ModuleToSave)
    ]
    for name, wrapper in wrappers:
        model.set_submodule(name, wrapper.base)
    with quiet():
        model.set_attn_implementation(frozen.own_attention)
    try:
        yield model
    finally:
        for name, wrapper in wrappers:
            model.set_submodule(name, wrapper)
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
