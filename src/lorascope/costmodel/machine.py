"""Machine that a plan predicts for: this CPU or GPU, or a device of the catalogue."""

import sys
from dataclasses import dataclass

import psutil
import torch

from lorascope.costmodel.cost_types import Hardware, TrainingConfig
from lorascope.costmodel.cpu_bench import CpuBenchmark
from lorascope.costmodel.devices import CONTEXT_BYTES, Device, Roofline, find_device, known_devices, recognise
from lorascope.costmodel.training_config import lorascope_config
from lorascope.errors import InputError
from lorascope.measure.environment import cpu_model, limit_threads, usable_memory
from lorascope.modeling.backends.cpu.build import ceiling, find_compiler
from lorascope.modeling.device_dtype import choose_dtype, resolve_device
from lorascope.spec.schema import StudySpec

_OFFERED = {"float32", "bfloat16"}
"""Precisions of a study that GPUs have published rates for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedMachine:
    """A device, and how lorascope would train on it."""

    name: str
    """The key of its calibrations."""
    hardware: Hardware
    memory_bytes: int
    rest_bytes: int
    """Memory of the program, its libraries and the driver."""
    dtype: str
    kernels: bool
    """True if the compiled kernels would compute."""
    from_base: bool = False
    """True if adapters start from the base's weights."""

    @property
    def config(self) -> TrainingConfig:
        """Training configuration of lorascope on this machine."""
        on_cpu = isinstance(self.hardware, CpuBenchmark)
        return lorascope_config(self.dtype, kernels=self.kernels, on_cpu=on_cpu, from_base=self.from_base)


def find_machine(spec: StudySpec) -> PlannedMachine:
    """Return the machine that the study's ``device`` names: this CPU, this GPU, or one of the catalogue.

    Raises:
        InputError: the device is none of them, or has no rate for the study's precision.
    """
    listed = find_device(spec.device)
    if listed is not None:
        return _from_catalogue(listed, spec)
    try:
        device = resolve_device(spec.device)
    except InputError as error:
        raise InputError(error.problem, remedy=f"use cpu, cuda or one of {known_devices()}") from error
    if device.type == "cpu":
        return _this_cpu(spec)
    name = torch.cuda.get_device_name(device)
    known = recognise(name)
    if known is None:
        raise InputError(f"the figures of {name} are not known here", remedy=f"name one of {known_devices()}")
    return _from_catalogue(known, spec)


def device_key(device: torch.device) -> str:
    """Return the name under which calibrations of a device are stored, with a CPU's threads and what limits it."""
    if device.type != "cuda":
        n_threads = torch.get_num_threads()
        parts = [cpu_model(), f"{n_threads} thread{'s' if n_threads > 1 else ''}", ceiling()]
        return ", ".join(filter(None, parts))
    name = torch.cuda.get_device_name(device)
    known = recognise(name)
    return known.name if known is not None else name


def _from_catalogue(device: Device, spec: StudySpec) -> PlannedMachine:
    dtype = spec.dtype
    if dtype == "auto":
        dtype = "bfloat16" if "bfloat16" in device.rates else "float32"
    if dtype not in device.rates:
        raise InputError(
            f"{device.name} has no published rate for {dtype}",
            remedy=f"choose one of its precisions: --dtype {' or '.join(sorted(_OFFERED & device.rates.keys()))}",
        )
    return PlannedMachine(
        name=device.name,
        hardware=Roofline(device),
        memory_bytes=device.memory_bytes,
        rest_bytes=CONTEXT_BYTES,
        dtype=dtype,
        kernels=False,
        from_base=spec.starts_from_base,
    )


def _this_cpu(spec: StudySpec) -> PlannedMachine:
    limit_threads()
    device = torch.device("cpu")
    dtype, _ = choose_dtype(spec.dtype, device)
    return PlannedMachine(
        name=device_key(device),
        hardware=CpuBenchmark(),
        memory_bytes=usable_memory(),
        rest_bytes=psutil.Process().memory_info().rss,
        dtype=str(dtype).removeprefix("torch."),
        kernels=spec.kernels and sys.platform == "linux" and find_compiler() is not None,
        from_base=spec.starts_from_base,
    )
