import os
import signal
import threading

import pytest

from lorascope.errors import Interrupted
from lorascope.run.signals import StopRequest


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_a_safe_place(number: int) -> None:
    told: list[int] = []
    with StopRequest() as stop, stop.deferred(lambda: told.append(number)):
        stop.check()
        send(number)
        assert told == [number]
        with pytest.raises(Interrupted):
            stop.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_comes_at_once(number: int) -> None:
    with StopRequest() as stop, stop.deferred(lambda: None):
        send(number)
        with pytest.raises(KeyboardInterrupt):
            send(number)


def test_where_nothing_is_to_be_kept_the_first_comes_at_once() -> None:
    with StopRequest() as stop:
        with pytest.raises(KeyboardInterrupt):
            send()
        with stop.deferred(lambda: None):
            pass
        with pytest.raises(KeyboardInterrupt):
            send()


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_may_run_a_study_without_signals() -> None:
    checked = []

    def work() -> None:
        with StopRequest() as stop, stop.deferred(lambda: None):
            stop.check()
            checked.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert checked == [True]
