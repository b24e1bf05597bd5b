"""Generation: a prompt is answered by the base and by adapters together, each in a row of one batch.

The loop is Transformers' own, with its cache of keys and values. The rows have one length, so nothing is padded.
Shapes: B rows of a batch, T tokens of the prompt.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, LogitsProcessor

from lorascope.engine.forward import FrozenModel
from lorascope.engine.reference import keeps_logits
from lorascope.modeling.adapters.lora import MultiLoraLinear
from lorascope.modeling.adapters.modules_to_save import ModuleToSave
from lorascope.modeling.load import quiet
from lorascope.modeling.packing.current import ActiveMicroBatch, active_microbatch
from lorascope.modeling.packing.packed_layout import MicroBatchLayout


def generate(
    frozen: FrozenModel,
    prompt: npt.NDArray[np.int64],
    adapters: Sequence[int],
    *,
    max_new_tokens: int,
    end_ids: Collection[int],
    temperature: float = 0.0,
    seed: int = 0,
    check_stop: Callable[[], None] = lambda: None,
) -> list[list[int]]:
    """Return the tokens that each adapter continues a prompt with, the end token included where one was written.

    Args:
        frozen: the prepared model, with its adapters attached.
        prompt: token ids, [T].
        adapters: index of each row's adapter, or ``BASE_ONLY``; all different.
        max_new_tokens: the most tokens of a continuation.
        end_ids: tokens that end it.
        temperature: 0 takes the likeliest token each time; above 0, tokens are drawn.
        seed: of the draws. All rows draw with the same noise, so that what differs between them is the adapter's doing.
        check_stop: raises when the run should stop.
    """
    prompt_BT = torch.from_numpy(prompt).to(frozen.device)[None]
    ends = sorted(end_ids)
    settings = GenerationConfig(  # what is not given here is as in the model's own settings
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        eos_token_id=ends,
        pad_token_id=ends[0],
        use_cache=True,
        return_dict_in_generate=False,
    )
    found: list[list[int]] = []
    frozen.set_attention(frozen.own_attention)
    for batch in [[index] for index in adapters] if frozen.alone else [adapters]:
        ids_BT = prompt_BT.expand(len(batch), -1)
        with quiet(), routed(frozen, batch, check_stop):
            model: Any = frozen.model  # whose methods torch takes for tensors
            whole = model.generate(
                input_ids=ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                generation_config=settings,
                logits_processor=[_Noise(temperature, seed)] if temperature else [],
                **_logits_of_all_tokens(frozen),
            )
        found += [_up_to_end(row, end_ids) for row in whole[:, len(prompt) :].tolist()]
    return found


def _up_to_end(tokens: Sequence[int], end_ids: Collection[int]) -> list[int]:
    before = list(takewhile(lambda token: token not in end_ids, tokens))
    return [*before, *tokens[len(before) : len(before) + 1]]


class _Noise(LogitsProcessor):
    """Draw from softmax(logits / temperature) by adding Gumbel noise, so that the largest sum is a draw."""

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        uniform = torch.rand(scores.shape[-1], generator=self._generator, dtype=torch.float64)
        noise = -(-uniform.clamp_min(1e-300).log()).log()
        return scores / self._temperature + noise.to(scores)


def _logits_of_all_tokens(frozen: FrozenModel) -> dict[str, int]:
    """A head with adapters or copies finds its rows in whole micro-batches only; others see the last token."""
    own = isinstance(frozen.model.get_output_embeddings(), MultiLoraLinear | ModuleToSave)
    return {"logits_to_keep": 0} if own and keeps_logits(frozen.model) else {}


@contextmanager
def routed(frozen: FrozenModel, adapters: Sequence[int], check_stop: Callable[[], None]) -> Iterator[None]:
    """Make each forward of the model a micro-batch of padded rows that go through adapters.

    Args:
        frozen: the model, which attends by its own attention.
        adapters: index of each row's adapter, or ``BASE_ONLY``; a single one is that of all rows.
        check_stop: raises when the run should stop.
    """
    stack = ExitStack()

    def enter(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        ids_BT = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        rows, tokens = ids_BT.shape
        layout = MicroBatchLayout(
            lengths=(tokens,) * rows,
            adapters=tuple(adapters) * (rows // len(adapters)),
            padded=True,
            device=frozen.device,
        )
        current = ActiveMicroBatch(layout=layout, backend=frozen.backend, check_stop=check_stop)
        stack.enter_context(active_microbatch(current))

    def leave(*arguments: object) -> None:
        del arguments
        stack.close()

    handles = (
        frozen.model.register_forward_pre_hook(enter, with_kwargs=True),
        frozen.model.register_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
