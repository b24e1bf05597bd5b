"""One trial while it trains: its adapter, its optimizer and its progress."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch

from lorascope.message import Message
from lorascope.modeling.adapters.adapter import Adapter, AdapterShape
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import ModuleToSave
from lorascope.records import AdapterRecord, OutcomeState, TrialOutcome, TrialRecord
from lorascope.search.trials import layer_shape, saved_rank
from lorascope.spec.schema import StudySpec

EXPLODED_NATS = 100.0
"""Above this mean loss, training has diverged: a uniform guess among 256,000 tokens costs 12.5 nats."""


class TrainingTrial:
    """The state of one trial; nothing in it is shared with another trial."""

    def __init__(
        self,
        record: TrialRecord,
        spec: StudySpec,
        layers: Mapping[str, MultiLoraLinear],
        compute_dtype: torch.dtype,
        modules: Mapping[str, ModuleToSave] = MappingProxyType({}),
    ) -> None:
        self.record = record
        self._saved_rank = saved_rank(spec, record.rank)
        differs = spec.rank_pattern or spec.alpha_pattern or any(layer.share > 1 for layer in layers.values())
        own = {n: layer_shape(spec, record.rank, n, record.lora_alpha, layer.share) for n, layer in layers.items()}
        shape = AdapterShape(
            rank=record.rank,
            scale=record.scale,
            dropout=spec.lora_dropout,
            seed=record.seed,
            own=own if differs else {},
            initialisation=spec.init_lora_weights,
        )
        self.adapter = Adapter(layers, shape, modules, compute_dtype=compute_dtype)
        self.optimizer = torch.optim.AdamW(
            [self.adapter.flat],
            lr=record.learning_rate,
            betas=(spec.adam_beta1, spec.adam_beta2),
            eps=spec.adam_epsilon,
            weight_decay=spec.weight_decay,
            fused=self.adapter.flat.device.type in {"cpu", "cuda"},
        )
        self.steps_done = 0
        self.diverged: Message | None = None
        """Why the trial cannot go on; None while it can."""
        self.stopped: Message | None = None
        """Why the trial was stopped early; None while it goes on."""
        self.eval_loss: float | None = None
        """Latest held-out loss in nats a token; None before the first evaluation of this process."""

    @property
    def has_left(self) -> bool:
        """Whether the trial takes no further step."""
        return (self.diverged or self.stopped) is not None

    def update(self, *, loss: float, learning_rate: float, max_grad_norm: float) -> float:
        """Clip this trial's own gradient, take one optimizer step, and return the norm before clipping.

        A non-finite norm, or a loss (nats a token) that exploded, leaves the weights as they are and ends the trial.
        """
        grad = self.adapter.flat.grad
        assert grad is not None
        norm = torch.linalg.vector_norm(grad).item()
        if not math.isfinite(norm):
            self.diverged = Message("trial.gradient_not_finite", step=self.steps_done + 1)
            return norm
        if loss > EXPLODED_NATS:
            self.diverged = Message("trial.exploded", step=self.steps_done + 1, loss=loss)
            return norm
        if max_grad_norm > 0 and norm > max_grad_norm:
            grad.mul_(max_grad_norm / (norm + 1e-6))
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        self.steps_done += 1
        return norm

    def outcome(self, total_steps: int) -> TrialOutcome:
        """Return how the trial ended, or that it is running."""
        state: OutcomeState
        if self.has_left:
            state = "diverged" if self.diverged else "stopped"
        else:
            state = "finished" if self.steps_done >= total_steps else "running"
        message = self.diverged or self.stopped
        return TrialOutcome(trial_id=self.record.trial_id, state=state, steps=self.steps_done, message=message)

    def adapter_record(self) -> AdapterRecord:
        """Return the exact sizes of the adapter's tensors, in memory and in its files; AdamW keeps two averages."""
        flat, whole = self.adapter.flat, self.adapter.saved_parameters
        parameter_bytes = flat.numel() * flat.element_size()
        n_saved = (flat.numel() - whole) * self._saved_rank // self.record.rank + whole
        return AdapterRecord(
            targets=self.record.targets,
            rank=self.record.rank,
            trainable_parameters=flat.numel(),
            parameter_bytes=parameter_bytes,
            gradient_bytes=parameter_bytes,
            optimizer_bytes=2 * parameter_bytes,
            saved_rank=self._saved_rank,
            saved_bytes=n_saved * flat.element_size(),
        )
