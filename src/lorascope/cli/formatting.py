"""Lines of text about a running study, for the terminal."""

from collections.abc import Sequence

from lorascope.cli.run_state import RunState
from lorascope.records import TrialRecord
from lorascope.run.trackers import SoloResult
from lorascope.text.numbers import format_count, format_seconds
from lorascope.units import format_bytes


def format_loss(value: float | None) -> str:
    """Format a loss in nats per token, or a dash without one."""
    return "-" if value is None else f"{value:.4f}"


def status_line(state: RunState, rss_bytes: int) -> str:
    """Summarise the run: activity, throughput, memory, time."""
    parts = [state.activity]
    if state.tokens_per_second is not None:
        parts.append(f"{format_count(state.tokens_per_second)} tokens/s")
    parts += [format_bytes(rss_bytes), f"{format_seconds(state.elapsed_seconds)} elapsed"]
    if state.seconds_left is not None:
        parts.append(f"{format_seconds(state.seconds_left)} left")
    return " · ".join(parts)


def solo_cost(result: SoloResult) -> str:
    """Describe the measured cost of a rank alone."""
    pace, peak = format_seconds(result.step_seconds), format_bytes(result.peak_bytes)
    return f"rank {result.rank} solo: {pace} per step, peak memory {peak}"


def scales(trials: Sequence[TrialRecord]) -> str:
    """List the LoRA scale of each rank: scale 4 at rank 8, 0.25 at rank 128."""
    by_rank = {trial.rank: trial.scale for trial in trials}
    return "scale " + ", ".join(f"{scale:.4g} at rank {rank}" for rank, scale in by_rank.items())


def outcome_line(trial_id: str, state: str, message: str) -> str:
    """Describe how a trial ended, with the last line of the reason, which holds a traceback's error."""
    reason = message.strip().splitlines()[-1] if message.strip() else ""
    return f"{trial_id} {state.replace('_', ' ')}" + (f": {reason}" if reason else "")
