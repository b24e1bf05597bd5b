"""What a step has to do, whatever the time: its matrix products, and what it keeps for the way back."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.modeling.backends.cpu.matmul_hooks import KernelProduct, watched_products

PRODUCTS = {
    "mm": (0, 1, -1),
    "addmm": (1, 2, -1),
    "addmm_": (1, 2, -1),
    "_addmm_activation": (1, 2, -1),
    "bmm": (0, 1, -1),
    "baddbmm": (1, 2, -1),
    "baddbmm_": (1, 2, -1),
    "linear": (0, 1, 0),
    "mkldnn_linear": (0, 1, 0),
    "_linear_pointwise": (0, 1, 0),
}
"""Operations that are one matrix product: where its factors stand, and the second one's dimension that it keeps."""


class ProductCounter(TorchDispatchMode):
    """Counts the matrix products inside a ``with`` block, those of the compiled kernels included.

    Products inside of attention (Torch's fused one, the kernels' own) are not seen, so that the counts are the least a
    step does. A product of [M, K] and [K, N] is 2 M K N operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0
        """Of operands and results, each moved once."""
        self._kernels = ExitStack()

    def __enter__(self) -> Self:
        self._kernels.enter_context(watched_products(self._count))
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._kernels.close()

    def _count(self, product: KernelProduct) -> None:
        rows, inner, columns = product[:3]
        self.flops += 2 * rows * inner * columns
        self.bytes += (rows * inner + inner * columns + rows * columns) * torch.bfloat16.itemsize

    def __torch_dispatch__(
        self,
        operation: Any,  # noqa: ANN401 - the types of torch's dispatcher are private to it
        types: Any,  # noqa: ANN401
        arguments: tuple[Any, ...] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        result = operation(*arguments, **(keywords or {}))
        places = PRODUCTS.get(operation.overloadpacket.__name__)
        if places is not None:
            first, second, kept = arguments[places[0]], arguments[places[1]], places[2]
            self.flops += 2 * first.numel() * second.shape[kept]
            self.bytes += first.nbytes + second.nbytes + result.nbytes
        return result


class SavedTensors:
    """Counts the bytes that forward passes save for their backward.

    Args:
        known: tensors that are there anyway, such as weights.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        self._known = {_storage(tensor) for tensor in known}
        self._pass: dict[int, int] = {}
        self.largest_bytes = 0
        """Of the pass that saved most."""

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is saved in the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._save, _unchanged):
            yield

    def microbatch_ends(self) -> None:
        """End one pass's forward."""
        self.largest_bytes = max(self.largest_bytes, sum(self._pass.values()))
        self._pass = {}

    def _save(self, tensor: torch.Tensor) -> torch.Tensor:
        place = _storage(tensor)
        if place not in self._known:
            self._pass[place] = tensor.untyped_storage().nbytes()
        return tensor


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
