"""Render charts in subprocesses, which start while the study is read.

vl-convert takes a second to start and holds the GIL while it renders, so threads gain nothing.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from lorascope.charts.fonts import check_fonts
from lorascope.charts.render import RenderedChart, render_charts
from lorascope.charts.vega import Spec
from lorascope.errors import InputError, LorascopeError
from lorascope.text.language import language

MAX_PROCESSES = 2
_OVERHEAD_BYTES = 60_000
"""Fixed time to render a chart, in bytes of specification that take as long."""
_CHILD = "from lorascope.charts.render_pool import serve; import sys; serve(sys.argv[1])"


class RenderPool:
    """Subprocesses that start on entry and render once."""

    def __init__(self, lang: str = "en") -> None:
        self._lang = lang
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for _ in range(min(MAX_PROCESSES, os.cpu_count() or 1)):
            command = [sys.executable, "-c", _CHILD, self._lang]
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ourselves
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def render(self, specs: Mapping[str, Spec]) -> dict[str, RenderedChart]:
        """Render specifications, by name, as ``render_charts`` does."""
        sizes = {name: _OVERHEAD_BYTES + len(json.dumps(spec)) for name, spec in specs.items()}
        shares = share_out(sizes, len(self._processes))
        asked = [json.dumps({name: specs[name] for name in share}) for share in shares]
        with ThreadPoolExecutor(len(self._processes)) as threads:
            answers = threads.map(_ask, self._processes, asked)
        rendered = {name: chart for answer in answers for name, chart in answer.items()}
        return {name: rendered[name] for name in specs}


def share_out(sizes: Mapping[str, int], parts: int) -> list[list[str]]:
    """Divide names into parts of nearly equal total size: the largest first, each to the smallest part."""
    shares: list[list[str]] = [[] for _ in range(parts)]
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        min(shares, key=lambda share: sum(sizes[other] for other in share)).append(name)
    return shares


def serve(lang: str) -> None:
    """Serve as a subprocess: warm up, read specifications from standard input, write the rendered charts."""
    if hasattr(os, "nice"):  # yield to the parent, which works first, and to a run on the same machine
        os.nice(10)
    # the parent reports errors of languages and fonts
    with contextlib.suppress(InputError), language(lang):
        check_fonts()
    render_charts({"warm-up": {"data": {"values": []}, "mark": "point"}})
    rendered = render_charts(json.load(sys.stdin))
    json.dump({name: (one.svg, base64.b64encode(one.png).decode()) for name, one in rendered.items()}, sys.stdout)


def _ask(process: subprocess.Popen[bytes], asked: str) -> dict[str, RenderedChart]:
    answer, _ = process.communicate(asked.encode())
    if process.returncode != 0:
        raise LorascopeError(f"a chart renderer exited with {process.returncode}; see its message above")
    return {name: RenderedChart(svg=svg, png=base64.b64decode(png)) for name, (svg, png) in json.loads(answer).items()}
