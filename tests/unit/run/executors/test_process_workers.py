"""The driver's side of worker processes, without any process."""

import multiprocessing
import os
import struct
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lorascope.run.executors import Event, GroupBegins, GroupEnded, GroupFailed, GroupOrder, process, worker
from lorascope.run.executors.pool import RemoteWorker, WorkerDied, WorkerPool
from lorascope.run.executors.worker import OrderEnded, WorkerSetup


def an_order() -> GroupOrder:
    made: Any = SimpleNamespace(shard=None)
    return made


class Base:
    """A model that only knows where it is."""

    def __init__(self) -> None:
        self.device = "cuda"

    def to(self, device: torch.device | str) -> None:
        self.device = str(device)


class Done:
    """A worker whose orders end at once."""

    name = "worker 1"

    def __init__(self, on_kill: Callable[[], None] = lambda: None) -> None:
        self._on_kill = on_kill
        self.is_gone = False

    def begin(self, order: GroupOrder) -> None:
        pass

    def proceed(self) -> None:
        pass

    def receive(self) -> OrderEnded:
        return OrderEnded(error=None)

    def stop(self) -> None:
        assert not self.is_gone, "a process that is closed cannot be terminated"

    def kill(self) -> None:
        self.is_gone = True
        self._on_kill()


def test_base_is_on_its_gpu_while_costs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    base, seen = Base(), []

    def start(place: int, setup: WorkerSetup) -> RemoteWorker:
        seen.append(("start", base.device))
        return Done()

    monkeypatch.setattr(process, "_devices", lambda asked: ["cuda:0"])
    monkeypatch.setattr(process, "_with_messages", lambda workers: workers)
    monkeypatch.setattr(process, "_WorkerProcess", start)
    monkeypatch.setattr(process, "release_memory", lambda device: None)
    study: Any = SimpleNamespace(
        spec=SimpleNamespace(device="cuda", workers=1),
        resolved=None,
        device=torch.device("cuda"),
        frozen=SimpleNamespace(model=base),
    )

    def emit(event: Event) -> None:
        assert isinstance(event, GroupBegins)
        seen.append(("begins", base.device))

    executor = process.ProcessExecutor(study)
    for _ in range(2):  # rounds
        executor.train(iter([an_order(), None]).__next__, emit)
        seen.append(("ended", base.device))
    assert seen == 2 * [("begins", "cuda"), ("start", "cpu"), ("ended", "cuda")]


def test_worker_killed_within_a_message_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        exitcode = -9

        def __init__(self, target: object, args: tuple[Connection, object], name: str) -> None:
            self._connection = args[0]

        def start(self) -> None:
            os.write(self._connection.fileno(), struct.pack("!i", 100) + b"cut")

        def join(self) -> None:
            pass

    context = multiprocessing.get_context("spawn")
    fake = SimpleNamespace(Pipe=context.Pipe, Process=Process)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fake)
    setup: Any = None
    made = process._WorkerProcess(0, setup)
    with pytest.raises(WorkerDied, match="signal 9"):
        made.receive()
    made.connection.close()


def test_signal_while_workers_are_ended_stops_none_that_is_gone() -> None:
    def wait(workers: Sequence[RemoteWorker]) -> Sequence[RemoteWorker]:
        raise KeyboardInterrupt

    def interrupt() -> None:
        pool.stop()

    made = Done(on_kill=interrupt)
    pool, orders = WorkerPool(1, lambda place: made, wait), [an_order()]
    with pytest.raises(KeyboardInterrupt):
        pool.train(lambda: orders.pop() if orders else None, lambda event: None)
    assert made.is_gone


def test_error_of_a_workers_start_is_that_of_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*arguments: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(worker, "prepare_study", prepare)
    monkeypatch.setattr(worker, "replace", lambda resolved, device: resolved)
    spec: Any = SimpleNamespace(model_copy=lambda update: None)
    resolved: Any = None
    started = worker.start_worker(WorkerSetup(spec=spec, resolved=resolved, device="cpu"))
    for order in (an_order(), an_order()):
        events: list[Event] = []
        assert started.train(order, events.append) == OrderEnded(error=None)
        failed, ended = events
        assert isinstance(failed, GroupFailed)
        assert (failed.order, failed.out_of_memory) == (order, False)
        text = str(failed.message.values["text"])
        assert text.startswith("Traceback")
        assert "RuntimeError: no kernel image is available" in text
        assert ended == GroupEnded(order=order)
