"""GPU counters through NVML, NVIDIA's management library, for the GPUs that this process may use."""

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from lorascope.records import GpuSample

T = TypeVar("T")
_WATTS = 1e-3
_UUID_KINDS = ("GPU-", "MIG-")


class Gpus:
    """Reads counters of GPUs in a ``with`` block; without a driver there are none.

    A counter that a device does not support is None, and a device that is lost is left out from then on.

    Args:
        only: UUID of the GPU to read, UUIDs of several, or its index among the visible ones; None: all visible
            GPUs.
        environ: holds CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, only: str | Sequence[str] | int | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._only = only
        self._visible = visible_gpus(environ)
        self._nvml: Any = None
        self._handles: dict[str, tuple[Any, str]] = {}

    def __enter__(self) -> Self:
        import pynvml  # noqa: PLC0415 - needed only with a GPU

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:  # no driver, no library, no permission
            self._nvml = None
            return self
        for handle in self._chosen():
            uuid = self._uuid(handle)
            if uuid:
                self._handles[uuid] = (handle, self._name(handle))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nvml is not None:
            self._ask(self._nvml.nvmlShutdown)

    def sample(self, seconds: float) -> list[GpuSample]:
        """Read every GPU that still answers."""
        found = []
        for uuid in list(self._handles):
            try:
                found.append(self._read(uuid, seconds))
            except self._nvml.NVMLError:
                del self._handles[uuid]
        return found

    def _chosen(self) -> list[Any]:
        """Find the devices; as in CUDA, the first invalid name ends the list."""
        nvml = self._nvml
        if isinstance(self._only, str):
            names: list[str | int] = [self._only]
        elif isinstance(self._only, Sequence):
            names = list(self._only)
        elif self._visible is None:
            names = list(range(self._ask(nvml.nvmlDeviceGetCount) or 0))
        else:
            names = self._visible
        handles = []
        for name in names:
            handle = self._handle(name)
            if handle is None:
                break
            handles.append(handle)
        return handles[self._only : self._only + 1] if isinstance(self._only, int) else handles

    def _handle(self, name: str | int) -> Any:  # noqa: ANN401 - NVML's handles have no type
        nvml = self._nvml
        if isinstance(name, int):
            return self._ask(lambda: nvml.nvmlDeviceGetHandleByIndex(name))
        exact = self._ask(lambda: nvml.nvmlDeviceGetHandleByUUID(name))
        if exact is not None:
            return exact
        # CUDA accepts an unambiguous prefix of a UUID
        handles = [self._handle(index) for index in range(self._ask(nvml.nvmlDeviceGetCount) or 0)]
        alike = [handle for handle in handles if handle is not None and self._uuid(handle).startswith(name)]
        return alike[0] if len(alike) == 1 else None

    def _name(self, handle: Any) -> str:  # noqa: ANN401
        return self._ask(lambda: self._nvml.nvmlDeviceGetName(handle)) or ""

    def _uuid(self, handle: Any) -> str:  # noqa: ANN401
        return self._ask(lambda: self._nvml.nvmlDeviceGetUUID(handle)) or ""

    def _read(self, uuid: str, seconds: float) -> GpuSample:
        nvml = self._nvml
        handle, name = self._handles[uuid]

        def ask(functions: str, *arguments: int) -> Any:  # noqa: ANN401
            """Call the first of several functions, newest first, that both bindings and driver support."""
            for function in functions.split():
                try:
                    return getattr(nvml, f"nvmlDeviceGet{function}")(handle, *arguments)
                except AttributeError:
                    continue
                except nvml.NVMLError as error:
                    if error.value in _gone(nvml):
                        raise
            return None

        memory, rates = ask("MemoryInfo"), ask("UtilizationRates")
        milliwatts = ask("PowerUsage")
        return GpuSample(
            seconds=seconds,
            rank=None,
            uuid=uuid,
            name=name,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            utilization_percent=None if rates is None else int(rates.gpu),
            memory_utilization_percent=None if rates is None else int(rates.memory),
            power_watts=None if milliwatts is None else milliwatts * _WATTS,
            sm_clock_mhz=ask("ClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=ask("ClockInfo", nvml.NVML_CLOCK_MEM),
            temperature_celsius=ask("TemperatureV Temperature", nvml.NVML_TEMPERATURE_GPU),
            throttle_reasons=ask("CurrentClocksEventReasons CurrentClocksThrottleReasons"),
        )

    def _ask(self, question: Callable[[], T]) -> T | None:
        """Return an answer, or None if the device refuses."""
        try:
            return question()
        except self._nvml.NVMLError:
            return None


def visible_gpus(environ: Mapping[str, str]) -> list[str | int] | None:
    """Parse CUDA_VISIBLE_DEVICES as CUDA does: indices or UUIDs, up to the first invalid one.

    Returns:
        Names in their order, or None if all devices are visible.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    names: list[str | int] = []
    for part in (part.strip() for part in text.split(",")):
        name: str | int = int(part) if part.isascii() and part.isdigit() else part
        if name in names:  # CUDA then hides all devices
            return []
        if isinstance(name, str) and not name.startswith(_UUID_KINDS):
            break
        names.append(name)
    return names


def _gone(nvml: Any) -> tuple[int, ...]:  # noqa: ANN401 - a module
    """List the errors that mean a lost device; any other means a missing counter."""
    return (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
