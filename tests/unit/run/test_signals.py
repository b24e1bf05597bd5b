import os
import signal
import threading

import pytest

from lorascope.errors import Interrupted
from lorascope.run.signals import StopRequest


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_deferred_to_a_safe_point(number: int) -> None:
    told: list[int] = []
    with StopRequest() as stop, stop.deferred(lambda: told.append(number)):
        stop.check()
        send(number)
        assert told == [number]
        with pytest.raises(Interrupted):
            stop.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_is_immediate(number: int) -> None:
    with StopRequest() as stop, stop.deferred(lambda: None):
        send(number)
        with pytest.raises(KeyboardInterrupt):
            send(number)


def test_signal_outside_deferral_is_immediate() -> None:
    with StopRequest() as stop:
        with pytest.raises(KeyboardInterrupt):
            send()
        with stop.deferred(lambda: None):
            pass
        with pytest.raises(KeyboardInterrupt):
            send()


def test_signal_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_stop_request_works_outside_the_main_thread() -> None:
    checked = []

    def work() -> None:
        with StopRequest() as stop, stop.deferred(lambda: None):
            stop.check()
            checked.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert checked == [True]
