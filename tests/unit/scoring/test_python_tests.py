"""Generated code in its own process: right and wrong answers, and code that does what it should not."""

import socket
import time
from pathlib import Path

import pytest

from lorascope.scoring.python_tests import PythonTests, code_of
from lorascope.scoring.sandbox import Limits, passes
from lorascope.scoring.scorer import ScoredRow, ScoreError

SHORT = Limits(seconds=5, memory_bytes=400 << 20)
DOUBLE = "assert double(2) == 4\nassert double('a') == 'aa'"


def row(tests: str | None = DOUBLE) -> ScoredRow:
    return ScoredRow(row=1, prompt="Double it.", reference="", tests=tests)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("def double(x):\n    return 2 * x\n", 1.0),
        ("Here:\n```python\ndef double(x):\n    return x + x\n```\nThat is all.", 1.0),
        ("```\ndouble = lambda x: 2 * x", 1.0),
        ("import json, math, re\nfrom collections import Counter\ndef double(x):\n    return 2 * x", 1.0),
        ("def double(x):\n    return 3 * x\n", 0.0),
        ("def double(x)\n    return 2 * x\n", 0.0),
        ("def double(x):\n    return 2 * x\nif __name__ == '__main__':\n    input()", 1.0),
        ("", 0.0),
        ("import sys\nsys.exit(0)", 0.0),
        ("import os\nos._exit(0)", 0.0),
        ("\0", 0.0),
        ("\ud800", 0.0),
    ],
)
def test_answers_are_right_where_their_tests_pass(answer: str, score: float) -> None:
    assert PythonTests(limits=SHORT).score(row(), answer) == score


def test_row_without_tests_cannot_be_judged() -> None:
    with pytest.raises(ScoreError, match="no tests"):
        PythonTests().score(row(None), "pass")


def test_code_is_the_first_block_or_the_whole_answer() -> None:
    assert code_of("x = 1") == "x = 1"
    assert code_of("a\n```py\nx = 1\n```\n```\ny = 2\n```") == "x = 1\n"


FORK = "import os\nwhile True:\n    os.fork()"
SPAWN = "import subprocess\nsubprocess.run(['sleep', '60'])"
SOCKET = "import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1).sendall(b'x')"


@pytest.mark.parametrize(
    "code",
    [
        "x = []\nwhile True:\n    x.append(bytearray(1 << 24))",
        "x = 'a' * (1 << 34)",
        FORK,
        SPAWN,
        "import os\nos.system('true')\nraise SystemExit",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "import multiprocessing\nmultiprocessing.get_context('spawn').Process(target=print).start()",
        "import os\nos.kill(os.getppid(), 9)",
        "def f():\n    f()\nimport sys\nsys.setrecursionlimit(10**9)\nf()",
        "open('big', 'wb').write(bytes(64 << 20))",
        "import ctypes\nctypes.CDLL(None).fork()",
    ],
)  # fmt: skip
def test_code_that_takes_too_much_fails(code: str) -> None:
    assert not passes(code, "", SHORT)


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 1\nassert asyncio.run(f()) == 1",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1",
        "from concurrent.futures import ThreadPoolExecutor\nassert list(ThreadPoolExecutor(4).map(abs, [-1])) == [1]",
        "import sqlite3\nsqlite3.connect(':memory:').execute('select 1')",
    ],
)
def test_code_may_use_threads_loops_and_data_classes(code: str) -> None:
    assert passes(code, "", SHORT)


def test_code_that_loops_for_ever_is_ended() -> None:
    began = time.monotonic()
    assert not passes("while True:\n    pass", "", Limits(seconds=1))
    assert not passes("import time\ntime.sleep(600)", "", Limits(seconds=1))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "how",
    [
        "open({0!r}, 'w')",
        "__import__('os').mkdir({0!r})",
        "__import__('os').rename('a', {0!r})",
        "__import__('os').mkfifo({0!r})",
        "__import__('sqlite3').connect({0!r})",
        "__import__('sqlite3').connect('file:' + {0!r}, uri=True)",
    ],
)
def test_code_that_writes_outside_fails_and_has_written_nothing(how: str, tmp_path: Path) -> None:
    target = tmp_path / "made"
    assert not passes(f"open('a', 'w').close()\n{how.format(str(target))}", "", SHORT)
    assert list(tmp_path.iterdir()) == []
    victim = tmp_path / "kept"
    victim.write_text("here")
    assert not passes(f"import os\nos.remove({str(victim)!r})", "", SHORT)
    assert not passes(f"import pathlib\npathlib.Path({str(victim)!r}).write_text('gone')", "", SHORT)
    assert victim.read_text() == "here"


def test_code_may_write_into_its_own_folder_which_is_gone_afterwards(tmp_path: Path) -> None:
    where = tmp_path / "where"
    where.touch()
    code = "import os, tempfile\nopen('a', 'w').write('1')\nfolder = os.getcwd()\ntempfile.TemporaryFile().close()"
    assert passes(code, "import os\nassert open('a').read() == '1'\nassert os.environ.get('SECRET') is None", SHORT)


def test_code_sees_no_variables_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert passes("import os\nassert 'HF_TOKEN' not in os.environ", "", SHORT)


def test_code_that_opens_a_socket_fails_and_reaches_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        assert not passes(SOCKET.format(port=server.getsockname()[1]), "", SHORT)
        with pytest.raises(TimeoutError):
            server.accept()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_open_descriptors_stay_the_same() -> None:
    before = open_descriptors()
    for code in ("", "raise ValueError", "while True: pass"):
        passes(code, "", Limits(seconds=1))
    assert open_descriptors() == before
