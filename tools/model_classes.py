"""Study a small random instance of every class in Transformers' causal mapping; --write makes docs/models.md of it.

Each class trains ranks 2 and 8 for four steps with query, key and value, with all-linear, and with that and the experts
that it stores in three-dimensional parameters, each of which has its share of the rank. It is right if the base's
held-out loss is plain Transformers' row by row, the saved adapter gives the reported loss in PEFT and merged into the
weights, and a rank trained alone ends with the same loss.

    python tools/model_classes.py [MODEL_TYPE ...] [--dtype bfloat16] [--write]
"""

import argparse
import copy
import re
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from lorascope.costmodel.shapes import model_shape
from lorascope.data.dataset import Example, Examples, Splits
from lorascope.engine.forward import FrozenModel
from lorascope.engine.loop import TrialGroup, train_group
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import CheckedModel, check_model
from lorascope.errors import InputError
from lorascope.measure.clock import StepClock
from lorascope.modeling.adapters.experts import expert_parameters, parameter_endings
from lorascope.modeling.adapters.peft_io import merge_peft, save_peft
from lorascope.records import EvalRecord, StepRecord, TrialOutcome, TrialRecord
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from lorascope.text.say import say
from tiny_configs import VOCABULARY, tiny_config

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
HEAD = """\
# Model classes

Small random instances of {classes} classes of Transformers' causal mapping (Transformers {transformers}, PEFT {peft}),
ranks 2 and 8, four steps in float32; made by `tools/model_classes.py`. A class is right if the base's held-out loss is
plain Transformers' for each row, PEFT gives the reported loss with the saved adapters, so does the merged model where a
merge is not refused, and a rank trained alone ends like the one trained jointly, all to 1e-4.
{counts}.

How rows go: packed end to end where that is right; padded where a model's attention takes more than packed attention
knows, such as caps, sinks, masks of its own, or values of another width than queries; one at a time where padding is
not right either.

Experts are those in three-dimensional parameters (`target_parameters`), each with its share of the rank.

In bfloat16 (`--dtype bfloat16`) all rows are compared together, to {rounded:.0%}. Where a token's experts are nearly a
tie, rounding decides between them, in Transformers and PEFT as here, and moves the loss of a short row by some per
cent: of PhiMoE's by 8 %. Adapted PhiMoE in bfloat16 against float32, 48 rows: 0.7 % off in PEFT and here (root mean
square of rows), all rows together 0.1 %; with the experts of float32, rows are 0.1 % off in both.

| class | query, key, value | all-linear | experts | rows, or the reason of the refusal |
| --- | --- | --- | --- | --- |"""
TARGETS = {"default": None, "all-linear": "all-linear", "experts": "all-linear"}
LONG = 150
"""Tokens of the longest row: more than any window of a small configuration."""
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
_SHAPES = re.compile(r"queries, keys and values of shapes.*")
_RIGHT, _REFUSED, _NOT_MADE, _NONE = "right", "refused", "not made", "none"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What became of one class with one set of targets."""

    outcome: str
    """``right``, ``refused``, ``wrong``, ``traceback``; ``not made``: no small instance works by itself; ``none``: the
    class has no experts in three-dimensional parameters."""
    note: str = ""


@dataclass
class _Kept:
    """A Recorder that keeps evaluations and trials in memory."""

    evaluations: list[EvalRecord] = field(default_factory=list)
    trials: dict[str, TrainingTrial] = field(default_factory=dict)
    lost: list[TrialOutcome] = field(default_factory=list)

    def steps(self, records: Sequence[StepRecord]) -> None:
        del records

    def evaluation(self, record: EvalRecord) -> None:
        self.evaluations.append(record)

    def ended(self, trials: Sequence[TrainingTrial], outcomes: Sequence[TrialOutcome]) -> None:
        self.trials |= {trial.record.trial_id: trial for trial in trials}
        self.lost += [outcome for outcome in outcomes if outcome.state != "finished"]

    def checkpoint_if_due(self, trials: Sequence[TrainingTrial]) -> None:
        del trials

    def nats(self, trial_id: str, step: int) -> tuple[float, ...]:
        return next(r.example_nats for r in self.evaluations if (r.trial_id, r.step) == (trial_id, step))


def make_model(model_type: str, dtype: torch.dtype) -> PreTrainedModel:
    """Make a small model with weights large enough for logits that differ from token to token."""
    torch.manual_seed(5)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_config(model_type))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    nn.Module.to(model, dtype)
    model.requires_grad_(requires_grad=False).train(mode=False)
    return model


def make_splits() -> Splits:
    """Make short rows and a long one for training, and the same for evaluation."""
    rng = np.random.default_rng(7)

    def rows(lengths: Sequence[int]) -> tuple[Example, ...]:
        found = []
        for length in lengths:
            mask = rng.random(length) < 0.7
            mask[0], mask[-1] = False, True
            found.append(Example(input_ids=rng.integers(3, VOCABULARY, length), target_mask=mask))
        return tuple(found)

    train = rows([5, 9, 14, LONG, 20, 7, 33, 12])
    return Splits(train=Examples.of(train), eval=rows([6, LONG - 9, 17, 30]), data_hash="", format="text", notes=())


def study(model_type: str, what: str, dtype: torch.dtype) -> Found:
    """Study one class with one set of targets."""
    splits, stage = make_splits(), "making the model"
    try:
        model = make_model(model_type, dtype)
        experts = _experts(model) if what == "experts" else ()
        if what == "experts" and not experts:
            return Found(outcome=_NONE)
        spec = _spec(TARGETS[what], experts)
        plain = copy.deepcopy(model)
        plain_nats(plain, splits.eval)
        stage = "before training"
        checked = check_model(spec, model, splits.train, None)
        model_shape(model, checked.frozen.layers)
        stage = "training"
        note = _check(checked, plain, splits, spec, dtype)
    except InputError as error:
        return Found(outcome=_REFUSED, note=error.problem)
    except Exception as error:  # noqa: BLE001 - any failure of a class is what the table is about
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{stage}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        outcome = _NOT_MADE if stage == "making the model" else "traceback"
        return Found(outcome=outcome, note=f"{message[:200]} ({Path(where.filename).name}:{where.lineno})")
    return Found(outcome="wrong" if note else _RIGHT, note=note or _how(checked))


def _how(checked: CheckedModel) -> str:
    if checked.frozen.packing:
        return "packed"
    if checked.frozen.alone:
        return "one row at a time"
    reason = checked.found.packing
    known = {"packing.differs": "state or positions that run across packed rows"}
    return f"padded: {known.get(reason.code) or reason.values.get('error', say(reason))}"


def _experts(model: PreTrainedModel) -> tuple[str, ...]:
    stored = [n for n, p in model.named_parameters() if p.dim() == 3 and "experts" in n]
    return parameter_endings(list(expert_parameters(model)) or stored)


def _spec(targets: str | None, experts: tuple[str, ...]) -> StudySpec:
    fields: dict[str, object] = {
        "ranks": (2, 8),
        "learning_rates": (1e-2,),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
    }
    if experts:
        fields |= {"target_parameters": experts, "expert_rank_rule": "per-expert-share"}
    return StudySpec.model_validate(
        {**fields, "eval_steps": 4, "target_modules": targets, "tokens_per_pass": 256, "seeds": (0,)}
    )


def _check(checked: CheckedModel, plain: PreTrainedModel, splits: Splits, spec: StudySpec, dtype: torch.dtype) -> str:
    """Return what is wrong; empty if nothing is."""
    frozen, tolerance = checked.frozen, _TOLERANCE[dtype]
    trials = plan_trials(spec)
    joint = _train(frozen, trials, splits, spec)
    if joint.lost:
        return f"training failed: {joint.lost[0].state}"
    first = trials[0].trial_id
    wrong = _apart("base", joint.nats(first, 0), plain_nats(plain, splits.eval), tolerance)
    alone = _train(frozen, trials[:1], splits, spec)
    wrong += _apart("joint and solo", joint.nats(first, 4), alone.nats(first, 4), tolerance)
    with TemporaryDirectory() as folder:
        for trial in trials:
            record = joint.trials[trial.trial_id]
            save_peft(
                Path(folder) / trial.trial_id, record.adapter.layers, frozen.layers, base="", rank=trial.rank,
                lora_alpha=trial.lora_alpha, rslora=spec.alpha_rule == "rslora", dropout=spec.lora_dropout,
            )  # fmt: skip
            reported = joint.nats(trial.trial_id, 4)
            loaded = PeftModel.from_pretrained(copy.deepcopy(plain), Path(folder) / trial.trial_id)
            wrong += _apart("PEFT", plain_nats(loaded, splits.eval), reported, tolerance)
            wrong += _merged(plain, Path(folder) / trial.trial_id, splits, reported, tolerance)
    return "; ".join(dict.fromkeys(wrong))


def _merged(plain: PreTrainedModel, folder: Path, splits: Splits, reported: Sequence[float], most: float) -> list[str]:
    merged = copy.deepcopy(plain)
    try:
        merge_peft(merged, folder)
    except InputError:
        return []  # the merge is refused
    return _apart("merged", plain_nats(merged, splits.eval), reported, most)


def _train(frozen: FrozenModel, trials: Sequence[TrialRecord], splits: Splits, spec: StudySpec) -> _Kept:
    kept = _Kept()
    group = TrialGroup(
        frozen=frozen, trials=[TrainingTrial(trial, spec, frozen.layers, frozen.model.dtype) for trial in trials],
        splits=splits, spec=spec, total_steps=4, recorder=kept, probe=StepClock(frozen.device), check_stop=lambda: None,
    )  # fmt: skip
    train_group(group)
    return kept


def plain_nats(model: torch.nn.Module, rows: Sequence[Example]) -> list[float]:
    """Return the nats of each row as Transformers or PEFT computes it, one row at a time."""
    found = []
    with torch.no_grad():
        for row in rows:
            ids, at = torch.from_numpy(row.input_ids), torch.from_numpy(row.target_mask).nonzero()[:, 0]
            logits = model(input_ids=ids[None], use_cache=False).logits[0].double()
            found.append(F.cross_entropy(logits[at - 1], ids[at], reduction="sum").item())
    return found


def _apart(what: str, ours: Sequence[float], theirs: Sequence[float], most: float) -> list[str]:
    if most > _TOLERANCE[torch.float32]:  # rounding may route a token to another expert, which moves one row's loss
        ours, theirs = [sum(ours)], [sum(theirs)]
    share = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
    return [] if share <= most else [f"{what} differs by {share:.2g}"]


def study_all(model_types: Sequence[str], dtype: torch.dtype) -> Iterator[tuple[str, dict[str, Found]]]:
    """Study classes one after the other."""
    for model_type in model_types:
        yield model_type, {name: study(model_type, name, dtype) for name in TARGETS}


def page(found: Mapping[str, Mapping[str, Found]]) -> str:
    """Write the results as a page of the documentation."""
    made = {kind: result for kind, result in found.items() if result["default"].outcome != _NOT_MADE}
    counts = "; ".join(
        f"{name}: {sum(r[name].outcome == _RIGHT for r in made.values())} right, "
        f"{sum(r[name].outcome == _REFUSED for r in made.values())} refused"
        for name in TARGETS
    )
    versions = {name: version(name) for name in ("transformers", "peft")}
    lines = [HEAD.format(classes=len(made), counts=counts, rounded=_TOLERANCE[torch.bfloat16], **versions)]
    for kind, result in sorted(made.items(), key=lambda item: MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[item[0]].lower()):
        notes = dict.fromkeys(
            _SHAPES.sub("values of another width", one.note).replace("|", "/") for one in result.values()
        )
        name = f"{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]} ({kind})"
        outcomes = " | ".join(result[what].outcome.replace(_NONE, "-") for what in TARGETS)
        lines.append(f"| {name} | {outcomes} | {'; '.join(filter(None, notes))} |")
    absent = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind] for kind in found.keys() - made.keys())
    return "\n".join([*lines, "", f"Not tried, as no small instance of them works by itself: {', '.join(absent)}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_types", nargs="*")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--write", action="store_true", help="write docs/models.md")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity(50)
    begin, found = time.monotonic(), {}
    by_class = {name: kind for kind, name in reversed(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items())}
    for model_type, result in study_all(chosen.model_types or sorted(by_class.values()), getattr(torch, chosen.dtype)):
        found[model_type] = result
        for name, one in result.items():
            print(f"{model_type:24} {name:11} {one.outcome:10} {one.note}", flush=True)
    for name in TARGETS:
        print(name, dict(Counter(result[name].outcome for result in found.values())))
    print(f"{time.monotonic() - begin:.0f} seconds")
    if chosen.write:
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
