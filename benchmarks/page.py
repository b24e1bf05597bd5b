"""The live page of a long study: time to the first paint, time and size of an update, memory of server and browser.

The study is made up: 10 trials of 100,000 steps, a million rows. The page is opened in Chromium three times.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

import long_studies
import results
from lorascope.spec.schema import StudySpec

RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
WAIT_SECONDS = 120
DRAWN = "document.querySelector('[data-chart=train_loss]')?.dataset.points"
SUMMARISED = "document.querySelector('[data-part=result] .verdict')"
LISTEN = """() => {
  window.sizes = [];
  new EventSource(document.body.dataset.stream).onmessage = (event) => { window.sizes.push(event.data.length); };
}"""
SCROLL = """async () => {
  const gaps = []; let before = performance.now();
  for (let y = 0; y < 120; y++) {
    window.scrollTo(0, (y * 40) % document.body.scrollHeight);
    await new Promise(requestAnimationFrame);
    const now = performance.now(); gaps.push(now - before); before = now;
  }
  return gaps;
}"""


def wait(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression holds; Playwright's own way of waiting is refused by the page's policy."""
    end = time.monotonic() + WAIT_SECONDS
    while not page.evaluate(f"!!({expression})"):
        if time.monotonic() > end:
            raise TimeoutError(expression)
        page.wait_for_timeout(20)


def visit(page: Page, address: str) -> dict[str, float]:
    """Open the page once; seconds to its lines and to its verdict."""
    began = time.perf_counter()
    page.goto(address)
    wait(page, DRAWN)
    lines = time.perf_counter() - began
    wait(page, SUMMARISED)
    return {"lines_seconds": lines, "verdict_seconds": time.perf_counter() - began}


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """Serve the study and open its page."""
    command = [sys.executable, "-m", "lorascope", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        visits = [visit(page, found[0]) for _ in range(3)]
        page.evaluate(LISTEN)
        wait(page, "sizes.length")
        updates = []
        for step in range(steps + 1, steps + 11):
            began = time.perf_counter()
            long_studies.append(folder, step, total_steps=2 * steps)
            shown = f"document.querySelector('[data-trial] td:nth-of-type(2)').textContent.startsWith('{step}')"
            wait(page, shown)
            updates.append(time.perf_counter() - began)
        first, *rest = page.evaluate("sizes")
        gaps = page.evaluate(SCROLL)
        measured = {
            "visits": visits,
            "update_seconds": updates,
            "bytes": {"first": first, "largest_update": max(rest)},
            "scroll_frame_ms": {"median": statistics.median(gaps), "worst": max(gaps)},
            "page_heap_bytes": page.evaluate("performance.memory?.usedJSHeapSize"),
            "points_in_page": int(page.evaluate(DRAWN)),
            "server_peak_bytes": _peak_bytes(server.pid),
        }
        browser.close()
        server.terminate()
    return measured


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return 1024 * int(found[1])
    return int(psutil.Process(pid).memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="steps of each of the ten trials")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "study"
        began = time.perf_counter()
        long_studies.write(folder, StudySpec(ranks=RANKS), total_steps=2 * steps, done=steps)
        print(f"{10 * steps:,} rows written in {time.perf_counter() - began:.1f} s")
        measured = measure(folder, steps)
    for key, value in measured.items():
        print(f"{key}: {value}")
    print(results.save("page", " ".join(["python", *sys.argv]), {"rows": 10 * steps, **measured}))


if __name__ == "__main__":
    main()
