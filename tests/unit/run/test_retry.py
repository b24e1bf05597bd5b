"""A write that the disk refuses is tried again, and given up with one message."""

import sqlite3
from collections.abc import Callable

import pytest

from lorascope.errors import Interrupted, LorascopeError
from lorascope.run import retry
from lorascope.run.retry import WriteRetry


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSE_SECONDS", 0.001)


def failing(times: int, error: Exception) -> tuple[Callable[[], None], list[int]]:
    done: list[int] = []

    def write() -> None:
        done.append(1)
        if len(done) <= times:
            raise error

    return write, done


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), sqlite3.OperationalError("database is locked")]
)
def test_retry_notes_the_wait_once(error: Exception) -> None:
    notes: list[str] = []
    write, done = failing(3, error)
    WriteRetry(notes.append, lambda: None).write(write)
    assert len(done) == 4
    assert notes == [f"cannot write ({error}); trying again for 5 minutes", "can write again; the run goes on"]


def test_retry_is_silent_on_success() -> None:
    notes: list[str] = []
    WriteRetry(notes.append, lambda: None).write(lambda: None)
    assert notes == []


def test_retry_gives_up_with_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_MAX_SECONDS", 0.01)
    write, _ = failing(10**9, OSError(30, "Read-only file system"))
    with pytest.raises(LorascopeError, match=r"cannot write .*Read-only file system\n  -> free space") as caught:
        WriteRetry(lambda _: None, lambda: None).write(write)
    assert caught.value.exit_code == 1


def test_retry_ends_on_a_signal() -> None:
    """Interrupted would save a checkpoint of steps that the store does not have."""

    def stop() -> None:
        raise Interrupted("stopped as asked")

    write, done = failing(10**9, OSError(28, "No space left on device"))
    with pytest.raises(LorascopeError) as caught:
        WriteRetry(lambda _: None, stop).write(write)
    assert not isinstance(caught.value, Interrupted)
    assert len(done) == 1


def test_retry_raises_other_errors() -> None:
    write, done = failing(1, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        WriteRetry(lambda _: None, lambda: None).write(write)
    assert len(done) == 1
