"""Drawing in processes of their own, which get ready while the study is still being read.

The drawing library takes a second to start and holds Python's lock while it draws, so that threads gain nothing.
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
from lorascope.charts.render import Drawing, draw_all, to_png
from lorascope.charts.vega import Spec
from lorascope.errors import InputError, LorascopeError
from lorascope.text.language import language

MOST_PROCESSES = 2
_BYTES_OF_ANY = 60_000
"""A chart takes as long to draw as that much more of its specification would, however small it is."""
_CHILD = "from lorascope.charts.render_pool import serve; import sys; serve(sys.argv[1])"


class Drawers:
    """Processes that start on entry and draw once."""

    def __init__(self, lang: str = "en") -> None:
        self._lang = lang
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for _ in range(min(MOST_PROCESSES, os.cpu_count() or 1)):
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

    def draw(self, specs: Mapping[str, Spec]) -> dict[str, Drawing]:
        """Draw specifications, by name, as ``draw_all`` does."""
        sizes = {name: _BYTES_OF_ANY + len(json.dumps(spec)) for name, spec in specs.items()}
        shares = share_out(sizes, len(self._processes))
        asked = [json.dumps({name: specs[name] for name in share}) for share in shares]
        with ThreadPoolExecutor(len(self._processes)) as threads:
            answers = threads.map(_ask, self._processes, asked)
        drawn = {name: drawing for answer in answers for name, drawing in answer.items()}
        return {name: drawn[name] for name in specs}


def share_out(sizes: Mapping[str, int], parts: int) -> list[list[str]]:
    """Divide names into parts of nearly equal size: the largest first, each to the part that has least."""
    shares: list[list[str]] = [[] for _ in range(parts)]
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        min(shares, key=lambda share: sum(sizes[other] for other in share)).append(name)
    return shares


def serve(lang: str) -> None:
    """Be one of the processes: get ready, read specifications from standard input, write their drawings."""
    if hasattr(os, "nice"):  # drawing makes way for who asks, which has more to do first, and for a run beside it
        os.nice(10)
    # What is wrong with a language or its fonts is said by the process that asks
    with contextlib.suppress(InputError), language(lang):
        check_fonts()
    to_png({"data": {"values": []}, "mark": "point"})
    drawn = draw_all(json.load(sys.stdin))
    json.dump({name: (one.svg, base64.b64encode(one.png).decode()) for name, one in drawn.items()}, sys.stdout)


def _ask(process: subprocess.Popen[bytes], asked: str) -> dict[str, Drawing]:
    answer, _ = process.communicate(asked.encode())
    if process.returncode != 0:
        raise LorascopeError(f"a process that draws charts ended with {process.returncode}; its message stands above")
    return {name: Drawing(svg=svg, png=base64.b64decode(png)) for name, (svg, png) in json.loads(answer).items()}
