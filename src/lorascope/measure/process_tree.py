"""Memory and processor use of this process, alone or with those that it started."""

from contextlib import suppress

import psutil


class ProcessTree:
    """Reads processes; memory that several of them share counts once for each.

    Args:
        with_children: read all descendants too, as workers train in them.
    """

    def __init__(self, *, with_children: bool) -> None:
        self._with_children = with_children
        self._root = psutil.Process()
        self._root.cpu_percent()  # a process's first call only starts psutil's interval
        self._known: dict[psutil.Process, psutil.Process] = {}

    def read(self) -> tuple[int, float]:
        """Return resident bytes and the use of processors since the last call, in percent of one core.

        A child's use counts from its second reading.

        Raises:
            psutil.Error: this process cannot be read; a child that cannot is left out.
        """
        rss, percent = self._root.memory_info().rss, self._root.cpu_percent()
        children = self._root.children(recursive=True) if self._with_children else []
        self._known = {child: self._known.get(child, child) for child in children}
        for child in self._known.values():
            with suppress(psutil.Error):  # it has ended
                more = child.memory_info().rss
                percent += child.cpu_percent()
                rss += more
        return rss, percent
