"""The machine that a prediction is for: this one, or a device of the catalogue."""

import sys
from dataclasses import dataclass

import psutil
import torch

from lorascope.costmodel.cost_types import Machine, TrainingConfig
from lorascope.costmodel.cpu_bench import HEAP_HOLES, LOW_RANK_FACTOR, OWN_LOW_RANK_FACTOR, OWN_PRODUCT_FACTOR, ThisCpu
from lorascope.costmodel.devices import CONTEXT_BYTES, Device, Roofline, find_device, known_devices, recognise
from lorascope.errors import InputError
from lorascope.measure.environment import cpu_model, limit_threads, usable_memory
from lorascope.modeling.backends.cpu.build import find_compiler, supports_bfloat16_matmul
from lorascope.modeling.device_dtype import choose_dtype, resolve_device
from lorascope.spec.schema import StudySpec

_OFFERED = {"float32", "bfloat16"}
"""Precisions of a study that GPUs are planned for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedMachine:
    """What computes, how fast, and how lorascope would use it."""

    name: str
    """Its name, with the number of threads on a CPU: calibrations are found by it."""
    machine: Machine
    memory_bytes: int
    rest_bytes: int
    """Memory that program, libraries and driver take."""
    dtype: str
    kernels: bool
    """Whether the compiled kernels would compute."""

    @property
    def config(self) -> TrainingConfig:
        """How lorascope trains there."""
        return lorascope_config(self.dtype, kernels=self.kernels, on_cpu=isinstance(self.machine, ThisCpu))


def lorascope_config(dtype: str, *, kernels: bool, on_cpu: bool) -> TrainingConfig:
    """Return how lorascope trains over a base in this precision; adapters are float32 at least."""
    low = dtype in {"bfloat16", "float16"}
    wide = 8 if dtype == "float64" else 4
    own_products = on_cpu and kernels and dtype == "bfloat16" and supports_bfloat16_matmul()
    low_rank_factor = OWN_LOW_RANK_FACTOR if own_products else LOW_RANK_FACTOR
    return TrainingConfig(
        dtype=dtype,
        low_rank_dtype=dtype,
        weight_bytes=wide,
        gradient_bytes=wide,
        optimizer_bytes=2 * wide,
        update_bytes=44 * wide // 4,
        rounding_bytes=(4 if own_products else 12) if low else 0,
        adapter_launches=14 if low and not own_products else 10,
        fused=kernels,
        product_factor=OWN_PRODUCT_FACTOR if own_products else 1.0,
        low_rank_factor=low_rank_factor if on_cpu else 1.0,
        holes=HEAP_HOLES if on_cpu else 0.0,
    )


def find_machine(spec: StudySpec) -> PlannedMachine:
    """Return the machine that ``device`` of a study names: this CPU, this GPU, or one of the catalogue.

    Raises:
        InputError: the device is none of them, or does not compute in the precision asked for.
    """
    listed = find_device(spec.device)
    if listed is not None:
        return _of_catalogue(listed, spec)
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
    return _of_catalogue(known, spec)


def device_key(device: torch.device) -> str:
    """Return the name under which a calibration of a device is kept."""
    if device.type != "cuda":
        n_threads = torch.get_num_threads()
        return f"{cpu_model()}, {n_threads} thread{'s' if n_threads > 1 else ''}"
    name = torch.cuda.get_device_name(device)
    known = recognise(name)
    return known.name if known is not None else name


def _of_catalogue(device: Device, spec: StudySpec) -> PlannedMachine:
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
        machine=Roofline(device),
        memory_bytes=device.memory_bytes,
        rest_bytes=CONTEXT_BYTES,
        dtype=dtype,
        kernels=False,
    )


def _this_cpu(spec: StudySpec) -> PlannedMachine:
    limit_threads()
    device = torch.device("cpu")
    dtype, _ = choose_dtype(spec.dtype, device)
    return PlannedMachine(
        name=device_key(device),
        machine=ThisCpu(),
        memory_bytes=usable_memory(),
        rest_bytes=psutil.Process().memory_info().rss,
        dtype=str(dtype).removeprefix("torch."),
        kernels=spec.kernels and sys.platform == "linux" and find_compiler() is not None,
    )
