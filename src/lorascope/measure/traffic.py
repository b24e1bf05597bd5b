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

    def read(self) -> int | None:
        """Return the bytes since the machine began to count; None where it does not, or says it cannot now."""
        try:
            counts = [int(file.read_text(encoding="ascii")) for file in self._files]
        except (OSError, ValueError):  # "Unavailable" and "Error" are what the files may say instead
            return None
        return sum(counts) if counts else None
