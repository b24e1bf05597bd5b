"""Memory traffic of the machine, from the processor's memory bandwidth monitoring.

Linux exposes the counters of Intel's and AMD's server processors as files once an administrator has mounted resctrl.
Performance counters, which have the same figure, need administrator rights.
"""

from pathlib import Path

_RESCTRL = Path("/sys/fs/resctrl")


class MemoryTraffic:
    """Counter of the bytes that all programs moved between processor and memory.

    Args:
        folder: where resctrl is mounted.
    """

    def __init__(self, folder: Path = _RESCTRL) -> None:
        self._files = sorted(folder.glob("mon_data/mon_L3_*/mbm_total_bytes"))
        self._first: int | None = None

    def read(self) -> int | None:
        """Return the bytes since this object's first reading, or None where they are not counted.

        The counter goes on between two runs of a study, and that traffic must not appear in either.
        """
        try:
            counts = [int(file.read_text(encoding="ascii")) for file in self._files]
        except (OSError, ValueError):  # the files may hold "Unavailable" or "Error"
            return None
        if not counts:
            return None
        if self._first is None:
            self._first = sum(counts)
        return sum(counts) - self._first
