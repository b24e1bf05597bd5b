"""Bytes between processors and memory, where the machine counts them for its users.

Linux offers the count of servers' processors (Intel's and AMD's memory bandwidth monitoring) as files once an
administrator has mounted resctrl. The performance counters that hold it too are for administrators alone.
"""

from pathlib import Path

_RESCTRL = Path("/sys/fs/resctrl")


class MemoryTraffic:
    """The machine's count of bytes moved, of all its programs together.

    Args:
        folder: where resctrl is mounted.
    """

    def __init__(self, folder: Path = _RESCTRL) -> None:
        self._files = sorted(folder.glob("mon_data/mon_L3_*/mbm_total_bytes"))
        self._first: int | None = None

    def read(self) -> int | None:
        """Return the bytes since this object's first reading; None where the machine counts none, or cannot now.

        The machine counts on between two runs of a study, whose readings shall not hold what it did then.
        """
        try:
            counts = [int(file.read_text(encoding="ascii")) for file in self._files]
        except (OSError, ValueError):  # "Unavailable" and "Error" are what the files may say instead
            return None
        if not counts:
            return None
        if self._first is None:
            self._first = sum(counts)
        return sum(counts) - self._first
