"""Solo runs of made-up studies, as a run with ``cost: quick`` records them but for more steps."""

from lorascope.records import SoloRun

BASE = 1_000_000_000
"""Memory before an adapter is made; each of a rank's last solo run takes 1 MB a rank more at its peak."""


def solo_run(rank: int, repeat: int) -> SoloRun:
    """A solo run with steps of (400 + rank) ms in the middle, the heaviest batch in the second one."""
    middle, peak, last = 0.4 + rank / 1000, BASE + rank * 1_000_000, repeat == 1
    return SoloRun(
        rank=rank, repeat=repeat, step_seconds=(2.0, middle, middle + 0.1, middle - 0.1), warmup_steps=1,
        step_tokens=(250, 260, 270, 240), cpu_seconds=4 * middle, base_bytes=BASE, forward_peak_bytes=peak - 1000,
        backward_peak_bytes=peak, optimizer_peak_bytes=peak - 2000, evaluation_peak_bytes=peak if last else None,
        held_bytes=BASE + rank * 800_000, after_bytes=BASE, reserved_peak_bytes=None, memory_method="kernel",
        samples_bytes=(peak,) if last else (BASE, BASE + rank * 500_000), warmup_samples=0 if last else 1,
        heaviest_tokens=300 if last else None, activation_bytes=rank * 100_000 if last else None,
        product_flops=None if last else 10**9 * (8 + rank), product_bytes=None if last else 10**8 * (8 + rank),
    )  # fmt: skip
