"""The process executor: groups train in processes of this machine, each on a GPU or on cores of its own."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType

import torch

from lorascope.data.processes import without_main
from lorascope.errors import InputError, LorascopeError
from lorascope.measure.environment import usable_cores
from lorascope.measure.memory import release_memory
from lorascope.modeling.device_dtype import resolve_device
from lorascope.run.executors import Claim, Emit, GroupOrder, Take
from lorascope.run.executors.pool import RemoteWorker, WorkerDied, WorkerPool
from lorascope.run.executors.worker import Message, OrderEnded, WorkerSetup, start_worker
from lorascope.run.prepare import PreparedStudy
from lorascope.spec.schema import StudySpec

_CORES = 8
"""Cores of a worker where no number of workers is given."""
_GO_ON = None
"""Sent to a worker when its last message has been handled."""


class ProcessExecutor:
    """Trains groups in processes, which load model and rows themselves and end with the driver."""

    def __init__(self, study: PreparedStudy) -> None:
        self._study = study
        self._devices = _devices(study.spec.device)
        self._count = study.spec.workers or 1
        self._is_base_aside = False
        self._pool = WorkerPool(self._count, self._start, _with_messages)

    @staticmethod
    def claim(spec: StudySpec) -> Claim:
        """Claim a worker for each GPU, or for every few cores, unless the study says how many."""
        devices = _devices(spec.device)
        if devices == ["cpu"]:
            _check_cores(spec.workers)
            return Claim(workers=spec.workers or max(1, usable_cores() // _CORES), processes=True)
        workers = spec.workers or len(devices)
        return Claim(workers=workers, parallel=min(workers, len(devices)), processes=True)

    def stop(self) -> None:
        """Stop all workers at their next safe point."""
        self._pool.stop()

    def close(self) -> None:
        """End all workers."""
        self._pool.close()

    def train(self, take: Take, emit: Emit) -> None:
        """Train groups, each in a worker; see ``Executor``."""
        try:
            self._pool.train(take, emit)
        finally:
            self._bring_base_back()

    def _put_base_aside(self) -> None:
        """Keep the driver's own base, which solo runs and analyses use, off the GPUs while workers train."""
        model: torch.nn.Module = self._study.frozen.model
        device = self._study.device
        if self._is_base_aside or device.type != "cuda" or getattr(model, "is_quantized", False):
            return
        self._is_base_aside = True
        model.to("cpu")
        release_memory(device)

    def _bring_base_back(self) -> None:
        if self._is_base_aside:
            self._pool.close()  # their memory is needed
            model: torch.nn.Module = self._study.frozen.model
            model.to(self._study.device)
            self._is_base_aside = False

    def _start(self, place: int) -> RemoteWorker:
        self._put_base_aside()  # not before: costs are measured with it when the first groups are about to begin
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        each = len(cores) // self._count
        on_cpu = self._devices == ["cpu"]
        setup = WorkerSetup(
            spec=self._study.spec,
            resolved=self._study.resolved,
            device=self._devices[place % len(self._devices)],
            cores=tuple(cores[place * each : (place + 1) * each]) if on_cpu else (),
            threads=max(1, torch.get_num_threads() // self._count),
        )
        return _WorkerProcess(place, setup)


def _devices(asked: str) -> list[str]:
    """Return the devices that workers may use: one, or every GPU where none is named."""
    device = resolve_device(asked)
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(device)]


def _check_cores(workers: int | None) -> None:
    if workers is not None and workers > usable_cores():
        raise InputError(
            f"workers is {workers}, and this process may use {usable_cores()} cores",
            remedy="give fewer workers, so that each has a core",
        )


class _WorkerProcess:
    """A process with a worker, and the pipe to it."""

    def __init__(self, place: int, setup: WorkerSetup) -> None:
        self.name = f"worker {place + 1}"
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, setup), name=self.name)
        with without_main():
            self._process.start()
        theirs.close()

    def begin(self, order: GroupOrder) -> None:
        self._send(order)

    def proceed(self) -> None:
        self._send(_GO_ON)

    def _send(self, what: GroupOrder | None) -> None:
        try:
            self.connection.send(what)
        except ConnectionError:  # it is dead, which the next receive says
            return

    def receive(self) -> Message:
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError) as error:  # the second where it died within a message
            self._process.join()
            code = self._process.exitcode or 0
            raise WorkerDied(f"signal {-code}" if code < 0 else f"exit code {code}") from error
        return message

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()


def _with_messages(workers: Sequence[RemoteWorker]) -> Sequence[RemoteWorker]:
    by_connection = {worker.connection: worker for worker in workers if isinstance(worker, _WorkerProcess)}
    return [by_connection[ready] for ready in wait(list(by_connection)) if isinstance(ready, Connection)]


def _work(connection: Connection, setup: WorkerSetup) -> None:
    """Be a worker until the driver closes the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of its processes; the driver decides
    with connection:
        try:
            _carry_out_orders(connection, setup)
        except (EOFError, ConnectionError):
            return


def _carry_out_orders(connection: Connection, setup: WorkerSetup) -> None:
    try:
        worker = start_worker(setup)
    except LorascopeError as error:
        connection.send(OrderEnded(error=error))
        return

    def on_terminate(number: int, frame: FrameType | None) -> None:
        del number, frame
        worker.stop()

    def emit(event: Message) -> None:
        connection.send(event)
        connection.recv()

    signal.signal(signal.SIGTERM, on_terminate)
    while True:
        connection.send(worker.train(connection.recv(), emit))
