"""The loss curve of every rank equals PEFT under transformers' own Trainer, from the same start on the same batches."""

from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import pytest
import torch
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from lorascope.data.row_order import step_rows
from lorascope.engine.trial import TrainingTrial
from lorascope.modeling.adapters.peft_io import save_peft
from lorascope.records import TrialRecord
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec
from support.groups import make_spec, prepared, run_group
from support.tiny_models import make_model, make_splits

STEPS = 20
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}


class LossKeeping(Trainer):
    """Trainer as it is, but for the order of rows and keeping the loss of each step unrounded."""

    kept: list[float]

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(cast("Sized", self.train_dataset))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        value = super().training_step(*args, **kwargs)
        self.kept.append(value.item())
        return value


def float64_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Transformers' own loss, but for its rounding of the logits to float32."""
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_items_in_batch


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([row["input_ids"] for row in rows], batch_first=True),
        "labels": pad([row["labels"] for row in rows], batch_first=True, padding_value=-100),
        "attention_mask": pad([torch.ones_like(row["input_ids"]) for row in rows], batch_first=True),
    }


def trainer_losses(folder: Path, spec: StudySpec, record: TrialRecord, kind: str, dtype: torch.dtype) -> list[float]:
    """Export the adapter as it starts, load it with PEFT, and let Trainer train it on the study's batches."""
    frozen = prepared(kind, dtype=dtype)
    start = TrainingTrial(record, spec, frozen.layers, dtype)
    save_peft(
        folder / "start", start.adapter.layers, frozen.layers, base="tiny", rank=record.rank,
        lora_alpha=record.lora_alpha, rslora=False, dropout=0.0,
    )  # fmt: skip
    model = peft.PeftModel.from_pretrained(
        make_model(kind, dtype), folder / "start", is_trainable=True, autocast_adapter_dtype=False
    )
    model.to(dtype)
    cast("Any", model.base_model).model.config.use_cache = False
    splits = make_splits()
    rows = [splits.train[row] for step in range(STEPS) for row in step_rows(spec, len(splits.train), seed=0, step=step)]
    dataset = [
        {
            "input_ids": torch.from_numpy(row.input_ids),
            "labels": torch.from_numpy(np.where(row.target_mask, row.input_ids, -100)),
        }
        for row in rows
    ]
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), max_steps=STEPS, use_cpu=True, report_to=[], logging_strategy="no",
        save_strategy="no", per_device_train_batch_size=spec.per_device_train_batch_size, disable_tqdm=True,
        learning_rate=record.learning_rate, lr_scheduler_type=spec.lr_scheduler_type, remove_unused_columns=False,
        warmup_steps=int(spec.warmup_steps), max_grad_norm=spec.max_grad_norm, weight_decay=spec.weight_decay,
    )  # fmt: skip
    own_loss = float64_loss if dtype == torch.float64 else None
    trainer = LossKeeping(
        model=model, args=arguments, train_dataset=dataset, data_collator=collate, compute_loss_func=own_loss
    )
    trainer.kept = []
    model.eval()
    # Trainer calls train(); the tiny models' own dropout stays off because the study runs the frozen base without it
    model.train = lambda mode=True: model
    trainer.train()
    return trainer.kept


@pytest.mark.filterwarnings("ignore")  # what Trainer and accelerate say of themselves is not ours to mend
@pytest.mark.parametrize(
    ("kind", "dtype", "scheduler"),
    [
        *((kind, dtype, "linear") for kind in ("llama", "opt", "gpt2") for dtype in TOLERANCES),
        ("llama", torch.float64, "cosine"),
        ("llama", torch.float64, "constant"),
    ],
)
def test_loss_curve_of_every_rank_equals_trainer(tmp_path: Path, kind: str, dtype: torch.dtype, scheduler: str) -> None:
    spec = make_spec(
        lora_dropout=0.0, max_steps=STEPS, lr_scheduler_type=scheduler, learning_rates=(2e-2,),
        warmup_steps=0 if scheduler == "constant" else 3,
    )  # fmt: skip
    ours = run_group(spec, kind, frozen=prepared(kind, dtype=dtype))
    for record in plan_trials(spec):
        theirs = trainer_losses(tmp_path / record.trial_id, spec, record, kind, dtype)
        losses = ours.losses(record.trial_id)
        assert len(losses) == len(theirs) == STEPS
        np.testing.assert_allclose(losses, theirs, rtol=TOLERANCES[dtype])
        moved = [layer.B.abs().max().item() for layer in ours.trials[record.trial_id].adapter.layers.values()]
        assert min(moved) > 0.05  # there was something to compare
