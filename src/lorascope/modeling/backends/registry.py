"""Registry of the backends that may be faster than Torch; one line each."""

from collections.abc import Callable

import torch

from lorascope.message import Message
from lorascope.modeling.backends.cpu.backend import load_cpu_backend
from lorascope.modeling.backends.protocol import Backend

LOADERS: list[Callable[[torch.device], tuple[Backend | None, Message]]] = [load_cpu_backend]
"""Each returns a backend for a device and how it was made, or None and the reason. The first that loads is tried."""


def load_fast_backend(device: torch.device) -> tuple[Backend | None, Message]:
    """Return the first backend that loads for a device, or None and the last one's reason."""
    for load in LOADERS:
        backend, reason = load(device)
        if backend is not None:
            break
    return backend, reason
