"""Which processes are read."""

import subprocess
import sys
import time

import psutil
import pytest

from lorascope.measure.process_tree import ProcessTree

HOLD, WORK_SECONDS = 200_000_000, 0.2
CHILD = f"held = bytearray(b'x') * {HOLD}; print('held', flush=True); import time\nwhile True: time.process_time()"


@pytest.mark.parametrize("with_children", [True, False])
def test_children_count_where_they_train(with_children: bool) -> None:
    tree = ProcessTree(with_children=with_children)
    alone, _ = tree.read()
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child_process = psutil.Process(child.pid)
        before = time.perf_counter()
        tree.read()
        began = sum(child_process.cpu_times()[:2])
        while sum(child_process.cpu_times()[:2]) < began + WORK_SECONDS:
            time.sleep(0.02)
        rss, percent = tree.read()
        busy_seconds = percent / 100 * (time.perf_counter() - before)
        own = psutil.Process().memory_info().rss
        child.kill()
    assert (rss > own + 0.9 * HOLD) == with_children
    assert rss == pytest.approx(own + (HOLD if with_children else 0), rel=0.3, abs=0.3 * HOLD)
    assert (busy_seconds >= WORK_SECONDS - 0.01) == with_children
    assert tree.read()[0] < alone + 0.5 * HOLD
