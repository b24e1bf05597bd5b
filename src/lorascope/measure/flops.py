"""Counters of matmul operations and of the bytes that autograd saves for backward."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.modeling.backends.cpu.matmul_hooks import KernelProduct, watched_products

MATMULS = {
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
"""ATen operations with one matrix product: positions of its factors, and the output dimension of the second one."""


class MatmulCounter(TorchDispatchMode):
    """Counts the operations of matrix products in a ``with`` block, those of the compiled kernels included.

    The counts are a lower bound: products inside fused attention are not seen. A product of [M, K] and [K, N] counts
    2 M K N operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0
        """Of operands and results, each counted once."""
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
        signature = MATMULS.get(operation.overloadpacket.__name__)
        if signature is not None:
            first, second, dimension = arguments[signature[0]], arguments[signature[1]], signature[2]
            self.flops += 2 * first.numel() * second.shape[dimension]
            self.bytes += first.nbytes + second.nbytes + result.nbytes
        return result


class SavedTensorCounter:
    """Counts the bytes that autograd saves for backward.

    Args:
        known: tensors to leave out, such as weights.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        self._known = {_storage(tensor) for tensor in known}
        self._saved: dict[int, int] = {}
        self.largest_bytes = 0
        """Of the micro-batch that saved most."""

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the tensors saved in the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._save, _unchanged):
            yield

    def microbatch_ends(self) -> None:
        """End the forward of one micro-batch."""
        self.largest_bytes = max(self.largest_bytes, sum(self._saved.values()))
        self._saved = {}

    def _save(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = _storage(tensor)
        if storage not in self._known:
            self._saved[storage] = tensor.untyped_storage().nbytes()
        return tensor


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
