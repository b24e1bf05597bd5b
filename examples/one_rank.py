"""Train one LoRA rank the plain way, in one file to read from top to bottom.

This is the mathematics of a lorascope trial without its speed: padded rows, one adapter, no packing. A test holds its
losses equal to the engine's. Run it with ``python examples/one_rank.py`` on the built-in model and rows.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.data.dataset import Example
from lorascope.data.prepare import prepare
from lorascope.data.row_order import step_rows, total_steps
from lorascope.modeling.adapters.linear_kinds.registry import linear_features
from lorascope.modeling.load import load_model, load_tokenizer, locate_model
from lorascope.modeling.targets import find_targets
from lorascope.search.trials import plan_trials
from lorascope.spec.load import find_study, load_spec
from lorascope.spec.schema import StudySpec


class LoraLinear(nn.Module):
    """A frozen linear layer plus scale * B A x."""

    def __init__(self, base: nn.Linear | Conv1D, rank: int, scale: float) -> None:
        super().__init__()
        n_in, n_out = linear_features(base)
        self.base, self.scale = base, scale
        dtype = torch.promote_types(base.weight.dtype, torch.float32)
        bound = 1 / math.sqrt(n_in)
        self.A = nn.Parameter(torch.empty(rank, n_in, dtype=dtype).uniform_(-bound, bound))
        self.B = nn.Parameter(torch.zeros(n_out, rank, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the update, computed in the base's precision."""
        A, B = self.A.to(x.dtype), self.B.to(x.dtype)
        base: torch.Tensor = self.base(x)
        return base + self.scale * (x @ A.T @ B.T)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimizer step did."""

    loss: float
    """Nats a target token, before the update."""
    grad_norm: float
    learning_rate: float


def add_lora(model: PreTrainedModel, spec: StudySpec, rank: int, scale: float) -> dict[str, LoraLinear]:
    """Put an adapter on every target layer; return the layers by name."""
    layers = {}
    for name in find_targets(model, spec.target_sets[0]):
        parent, _, own = name.rpartition(".")
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear | Conv1D)
        layers[name] = LoraLinear(base, rank, scale)
        setattr(model.get_submodule(parent), own, layers[name])
    return layers


def pad(rows: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, the mask of real tokens and the mask of targets, each [rows, longest]."""
    ids = [torch.from_numpy(row.input_ids) for row in rows]
    targets = [torch.from_numpy(row.target_mask) for row in rows]
    real = [torch.ones_like(row) for row in ids]
    padded = [nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (ids, real, targets)]
    return padded[0], padded[1], padded[2]


def mean_loss(model: PreTrainedModel, rows: Sequence[Example]) -> torch.Tensor:
    """Return the mean cross entropy over all targets of the rows, in nats."""
    ids, real, targets = pad(rows)
    logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1]
    wide = torch.promote_types(logits.dtype, torch.float32)
    nats = F.cross_entropy(logits.flatten(0, 1).to(wide), ids[:, 1:].flatten(), reduction="none")
    return nats[targets[:, 1:].flatten()].mean()


def decayed(learning_rate: float, step: int, n_steps: int) -> float:
    """Return the rate of a linear decay to zero."""
    return learning_rate * (1 - step / n_steps)


def train(
    model: PreTrainedModel, layers: dict[str, LoraLinear], examples: Sequence[Example], spec: StudySpec, n_steps: int
) -> Iterator[Step]:
    """Train the adapters with AdamW; yield each step as it is done."""
    parameters = [weight for layer in layers.values() for weight in (layer.A, layer.B)]
    optimizer = torch.optim.AdamW(
        parameters, betas=(spec.adam_beta1, spec.adam_beta2), eps=spec.adam_epsilon, weight_decay=spec.weight_decay
    )
    for step in range(n_steps):
        rows = [examples[i] for i in step_rows(spec, len(examples), seed=spec.seeds[0], step=step)]
        loss = mean_loss(model, rows)
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
        learning_rate = decayed(plan_trials(spec)[0].learning_rate, step, n_steps)
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        yield Step(loss=loss.item(), grad_norm=grad_norm.item(), learning_rate=learning_rate)


def main() -> None:
    """Train rank 8 of the built-in study."""
    spec = load_spec(find_study("demo"), {"ranks": [8]})
    trial = plan_trials(spec)[0]
    source = locate_model(spec.model, trust_remote_code=False)
    splits = prepare(spec, load_tokenizer(source))
    model = load_model(source, dtype=torch.float32, device=torch.device("cpu"))
    torch.manual_seed(trial.seed)
    layers = add_lora(model, spec, trial.rank, trial.scale)
    n_steps = total_steps(spec, len(splits.train))
    for number, step in enumerate(train(model, layers, splits.train, spec, n_steps), 1):
        print(f"step {number}/{n_steps}: loss {step.loss:.4f}, gradient norm {step.grad_norm:.3f}")
    with torch.no_grad():
        print(f"held-out loss {mean_loss(model, splits.eval).item():.4f}")


if __name__ == "__main__":
    main()
