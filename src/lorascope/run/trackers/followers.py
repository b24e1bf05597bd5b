"""The trackers of a run: a process for each, which reads the study's store and ends after the run."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import cast

from lorascope.run.trackers import Tracker
from lorascope.run.trackers.experiment import TRACKERS, check_trackers


class Followers:
    """The trackers of a run; they read the store, and want to know only when it is there and when the report is."""

    def __init__(self, followers: Sequence["_Follower"]) -> None:
        self._followers = followers

    @property
    def tracker(self) -> Tracker:
        """Return the tracker of events that lets them begin with the first round, which is this study's for sure."""
        return cast("Tracker", _Starter(self._followers))

    def result(self) -> None:
        """Say that the study is complete and its report is written."""
        for follower in self._followers:
            follower.send("result")


class _Starter:
    """Hears of the first round; all other events are in the store."""

    def __init__(self, followers: Sequence["_Follower"]) -> None:
        self._followers = followers

    def begin(self, *_: object) -> None:
        for follower in self._followers:
            follower.send("go")

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *_: None


@contextlib.contextmanager
def follow_run(
    names: Sequence[str], folder: Path, note: Callable[[str], None], phase: Callable[[str], None]
) -> Iterator[Followers]:
    """Report a run within this block to trackers, and wait behind it until they have all.

    Args:
        names: of the trackers.
        folder: of the study.
        note: told once of a tracker that fails or takes longer than five seconds, which is not waited for.
        phase: told what is waited for.

    Raises:
        InputError: there is no tracker of a name, or its library is not installed.
    """
    check_trackers(names)
    followers = [_Follower(name, folder, note) for name in names]
    try:
        yield Followers(followers)
    finally:
        for follower in followers:
            follower.close()
        for follower in followers:
            if not follower.released:
                phase(f"handing the rest to {follower.name}")
            follower.wait()


class _Follower:
    """The process of one tracker, as the run sees it."""

    def __init__(self, name: str, folder: Path, note: Callable[[str], None]) -> None:
        self.name = name
        self._note = note
        self._folder = folder
        self._released = threading.Event()
        self._slow = False
        module = "lorascope.run.trackers.follow"
        self._process = Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", module, TRACKERS[name].path, str(folder)],
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the run, which tells this process by its end
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, line: str) -> None:
        """Send a line, unless the process has ended."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            print(line, file=self._process.stdin, flush=True)

    def close(self) -> None:
        """Say that the run has ended."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    @property
    def released(self) -> bool:
        """Return True if there is nothing to wait for."""
        return self._released.is_set()

    def wait(self) -> None:
        """Wait until the tracker has everything, has failed or does not answer; then it ends by itself, or is ended."""
        self._released.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._hear(*line.strip().partition(" ")[::2])
        self._released.set()
        self._process.wait()

    def _hear(self, word: str, text: str) -> None:
        if word == "failed":
            self._say(f"{text}; the study goes on without it")
        elif word == "where":
            self._note(f"{self.name}: {text}")
        elif word == "slow":
            self._released.set()
            if not self._slow:
                self._say("it has not answered for 5 seconds, and the study does not wait for it")
            self._slow = True
        elif word == "fine":
            self._released.clear()

    def _say(self, text: str) -> None:
        command = f"lorascope export {self._folder} --to-tracker {self.name}"
        self._note(f"{self.name}: {text} ({command} brings what is missing)")
