"""The device of a run, and the precision of the frozen base."""

import time

import torch

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.modeling.backends.cpu.build import supports_bfloat16_matmul

_WORTH = 1.2
"""bfloat16 matmuls must be this much faster to be worth their rounding."""


def resolve_device(device: str) -> torch.device:
    """Resolve ``auto`` or the name of a CPU or CUDA device to a device that is present.

    Raises:
        InputError: the device is absent, or of a kind whose memory and time are not measured, such as ``mps``.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = device.partition(":")[0]
    if kind not in {"cpu", "cuda"}:
        remedy = "use --device cpu" if kind == "mps" else "use auto, cpu or cuda (plan takes GPUs by name)"
        raise InputError(f"device {device!r} cannot be used: only cpu and cuda devices are supported", remedy=remedy)
    try:
        resolved = torch.device(device)
        torch.ones(1, device=resolved).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"device {device!r} cannot be used: {reason}", remedy="use auto or cpu") from error
    return resolved


def choose_dtype(dtype: str, device: torch.device) -> tuple[torch.dtype, Message]:
    """Return the base's precision and the reason.

    ``auto`` asks Torch on a GPU. A CPU with instructions that multiply bfloat16 is not timed, as one moment of a busy
    machine must not decide; on others one matrix product of a language model's size is, in both precisions.
    """
    if dtype != "auto":
        return getattr(torch, dtype), Message("asked")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, Message("dtype.gpu_bfloat16")
        return torch.float32, Message("dtype.gpu_float32")
    return _choose_on_cpu()


def _choose_on_cpu() -> tuple[torch.dtype, Message]:
    if supports_bfloat16_matmul():
        return torch.bfloat16, Message("dtype.cpu_instructions")
    ratio = _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)
    if ratio >= _WORTH:
        return torch.bfloat16, Message("dtype.cpu_faster", ratio=ratio)
    return torch.float32, Message("dtype.cpu_slower", ratio=ratio)


def _product_seconds(dtype: torch.dtype) -> float:
    # some units are quicker with constant numbers
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.rand(rows, 1024, generator=generator).to(dtype) for rows in (512, 1024))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
