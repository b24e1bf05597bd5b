"""One measured process of a peer: transformers' Trainer or TRL's SFTTrainer over PEFT, on lorascope's very rows.

Set up as a careful user would: no gradient checkpointing, no evaluation, no saving, no logging, rows padded to the
longest of their batch, the base's own dropout off as it is in lorascope, batches of the rows that lorascope's have.
"""

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from jobs import Job, Result, peak_rss_bytes, seconds_since, study_of
from lorascope.data.dataset import Example
from lorascope.data.prepare import prepare
from lorascope.data.row_order import step_rows, total_steps
from lorascope.modeling.load import load_tokenizer, locate_model
from lorascope.search.trials import plan_trials
from lorascope.spec.schema import StudySpec

PACKED_LENGTH = 512
_NO_TARGET = -100
"""Label of a token that the loss leaves out, in Transformers."""


class TrainingTime(TrainerCallback):
    """The time from just before the first step to after the last."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.before_rss_bytes = 0

    def on_train_begin(self, *_given: object, **_more: object) -> None:
        self.before_rss_bytes = psutil.Process().memory_info().rss
        self.began = time.perf_counter()

    def on_train_end(self, *_given: object, **_more: object) -> None:
        self.ended = time.perf_counter()


def train_peer(job: Job) -> Result:
    """Train the one rank of a job with the program it names."""
    assert job.max_steps is None, "peers train one epoch"
    spec = study_of(job)
    source = locate_model(spec.model, trust_remote_code=False)
    tokenizer = load_tokenizer(source)
    splits = prepare(spec, tokenizer)
    lora, training, watch = _lora_settings(spec), _training_settings(job, spec, splits.train), TrainingTime()
    with tempfile.TemporaryDirectory() as folder:
        weights = torch.bfloat16 if job.program == "trainer-bf16-weights" else torch.float32
        model, rows = _base_model(source.path, weights), _in_order(spec, splits.train)
        if job.program in {"trl", "trl-packed"}:
            from trl import SFTConfig, SFTTrainer  # noqa: PLC0415 - the other peers do without it

            trainer: Trainer = SFTTrainer(
                model=model,
                args=SFTConfig(output_dir=folder, **training),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                peft_config=LoraConfig(**lora),
                callbacks=[watch],
            )
        else:
            trainer = Trainer(
                model=get_peft_model(model, LoraConfig(**lora)),
                args=TrainingArguments(output_dir=folder, **training),
                train_dataset=rows,
                data_collator=_padded,
                callbacks=[watch],
            )
        output = trainer.train()
    return Result(
        program=job.program,
        ranks=job.ranks,
        train_seconds=watch.ended - watch.began,
        process_seconds=seconds_since(job.started),
        peak_rss_bytes=peak_rss_bytes(),
        before_rss_bytes=watch.before_rss_bytes,
        steps=output.global_step,
        tokens=sum(len(row["input_ids"]) for row in rows),
        train_loss={f"r{job.ranks[0]}": output.training_loss},
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        data_hash=splits.data_hash,
        threads=torch.get_num_threads(),
        dtype=str(model.dtype).removeprefix("torch."),
        settings={
            "lora": lora,
            "training": training,
            "weights": str(weights).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "base_dropout": 0.0,
        },
    )


def _base_model(path: str, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(path)
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.use_cache = False
    return AutoModelForCausalLM.from_pretrained(path, config=config, dtype=dtype)


def _lora_settings(spec: StudySpec) -> dict[str, Any]:
    (trial,) = plan_trials(spec)
    return {
        "r": trial.rank,
        "lora_alpha": trial.lora_alpha,
        "lora_dropout": spec.lora_dropout,
        "target_modules": list(spec.target_modules or ()),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def _training_settings(job: Job, spec: StudySpec, examples: Sequence[Example]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": spec.per_device_train_batch_size,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": spec.num_train_epochs,
        "learning_rate": plan_trials(spec)[0].learning_rate,
        "lr_scheduler_type": spec.lr_scheduler_type,
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "weight_decay": spec.weight_decay,
        "adam_beta1": spec.adam_beta1,
        "adam_beta2": spec.adam_beta2,
        "adam_epsilon": spec.adam_epsilon,
        "max_grad_norm": spec.max_grad_norm,
        "bf16": job.program != "trainer",
        "use_cpu": True,
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": spec.seeds[0],
    }
    if job.program == "trl":
        settings |= {"packing": False, "max_length": PACKED_LENGTH, "completion_only_loss": False}
    if job.program == "trl-packed":
        # as many packed rows as hold the tokens of one batch of single rows: the steps stay about as many and as large
        tokens = spec.per_device_train_batch_size * sum(e.n_tokens for e in examples) / len(examples)
        settings |= {"packing": True, "max_length": PACKED_LENGTH, "completion_only_loss": False}
        settings["per_device_train_batch_size"] = max(1, round(tokens / PACKED_LENGTH))
    return settings


def _in_order(spec: StudySpec, examples: Sequence[Example]) -> list[dict[str, list[int]]]:
    """Return the rows of one epoch in the order in which lorascope takes them, with the labels of its targets."""
    steps = range(total_steps(spec, len(examples)))
    chosen = [row for step in steps for row in step_rows(spec, len(examples), seed=spec.seeds[0], step=step)]
    return [
        {"input_ids": row.input_ids.tolist(), "labels": np.where(row.target_mask, row.input_ids, _NO_TARGET).tolist()}
        for row in map(examples.__getitem__, chosen)
    ]


def _padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids, labels = ([torch.tensor(row[name]) for row in rows] for name in ("input_ids", "labels"))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=_NO_TARGET),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
