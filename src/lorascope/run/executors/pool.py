"""Hand orders to workers wherever they run, and their events to the driver: what process and Ray have in common."""

from collections.abc import Callable, Sequence
from typing import Protocol

from lorascope.errors import Interrupted
from lorascope.run.executors import Emit, GroupBegins, GroupOrder, Take, WorkerLost
from lorascope.run.executors.worker import Message, OrderEnded


class WorkerDied(Exception):  # noqa: N818 - it says what happened
    """A worker is gone; its text says how, such as "signal 9"."""


class RemoteWorker(Protocol):
    """A worker in another process, as the driver sees it."""

    name: str
    """Such as "worker 2"."""

    def begin(self, order: GroupOrder) -> None:
        """Send an order, and ask for its first message."""

    def proceed(self) -> None:
        """Let the worker go on behind its last message, and ask for the next one."""

    def receive(self) -> Message:
        """Return the message that has come. Raises WorkerDied where none will."""

    def stop(self) -> None:
        """Let the worker save its group and stop; called from a signal handler."""

    def kill(self) -> None:
        """End the worker at once."""


class WorkerPool:
    """Keeps up to ``count`` workers busy, and replaces those that die.

    Args:
        count: most workers.
        start: makes the worker of a place, counted from 0; it begins to load the model by itself.
        wait: returns those of some workers that have a message or are dead; at least one.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int], RemoteWorker],
        wait: Callable[[Sequence[RemoteWorker]], Sequence[RemoteWorker]],
    ) -> None:
        self._count = count
        self._start = start
        self._wait = wait
        self._workers: dict[int, RemoteWorker] = {}
        self._orders: dict[int, GroupOrder] = {}
        """Orders that are being carried out, by the place of their worker."""
        self._stopping = False

    def stop(self) -> None:
        """Stop all workers at their next safe point."""
        self._stopping = True
        for place in self._orders:
            self._workers[place].stop()

    def close(self) -> None:
        """End all workers."""
        self._orders.clear()  # first, so that a signal stops none that is gone
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()

    def train(self, take: Take, emit: Emit) -> None:
        """Train groups until there is none left; see ``Executor``."""
        try:
            while self._hand_out(take, emit):
                busy = {self._workers[place].name: place for place in self._orders}
                for worker in self._wait([self._workers[place] for place in busy.values()]):
                    self._handle(busy[worker.name], emit)
        except BaseException:
            self.close()
            raise
        if self._stopping:
            raise Interrupted("stopped as asked")

    def _hand_out(self, take: Take, emit: Emit) -> bool:
        """Give orders to idle workers, all of which begin together; return True where any is busy."""
        taken: dict[int, GroupOrder] = {}
        for place in (place for place in range(self._count) if place not in self._orders):
            order = None if self._stopping else take()
            if order is None:
                break
            taken[place] = order
        for order in taken.values():
            emit(GroupBegins(order=order))
        for place, order in taken.items():
            if place not in self._workers:
                self._workers[place] = self._start(place)
            self._orders[place] = order
            self._workers[place].begin(order)
        if self._stopping:  # it came while these began
            self.stop()
        return bool(self._orders)

    def _handle(self, place: int, emit: Emit) -> None:
        worker = self._workers[place]
        try:
            message = worker.receive()
        except WorkerDied as died:
            self._replace(place, str(died), emit)
            return
        if not isinstance(message, OrderEnded):
            emit(message)
            worker.proceed()
        elif isinstance(message.error, Interrupted):
            self._replace(place, "stopped from outside", emit)
        elif message.error is not None:
            raise message.error
        else:
            del self._orders[place]

    def _replace(self, place: int, reason: str, emit: Emit) -> None:
        """Make room for another worker, and hand the order back, unless all were told to stop."""
        order, worker = self._orders.pop(place), self._workers.pop(place)
        worker.kill()
        if not self._stopping:
            emit(WorkerLost(order=order, worker=worker.name, reason=reason))
