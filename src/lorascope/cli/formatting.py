"""Lines of text about a running study, for the terminal."""

from collections.abc import Sequence

from lorascope.cli.run_state import RankRow, RunState
from lorascope.records import TrialRecord
from lorascope.run.trackers import SoloResult
from lorascope.text.numbers import arm_text, format_about, format_count, format_seconds
from lorascope.units import format_bytes


def format_loss(value: float | None) -> str:
    """Format a loss in nats per token, or a dash without one."""
    return "-" if value is None else f"{value:.4f}"


def status_line(state: RunState, rss_bytes: int) -> str:
    """Summarise the machine's part: throughput, memory, time."""
    parts = []
    if state.tokens_per_second is not None:
        parts.append(f"{format_count(state.tokens_per_second)} tokens/s")
    parts += [format_bytes(rss_bytes), f"{format_seconds(state.elapsed_seconds)} elapsed"]
    return " · ".join(parts)


def progress_line(state: RunState) -> str:
    """Say how far the run is: 37 % · step 23 of 60 · 8 min left."""
    parts = [f"{100 * state.share_done:.0f} %"]
    if state.total_steps:
        parts.append(f"step {state.step_done} of {state.total_steps}")
    if state.seconds_left is not None:
        parts.append(f"{format_about(state.seconds_left)} left")
    return " · ".join(parts)


def rank_lines(state: RunState) -> list[str]:
    """Write a line of key=value pairs for each rank."""
    at = f"step={state.step_done}/{state.total_steps}"
    return [_pairs(at, row, state) for row in state.rank_rows]


def base_line(state: RunState) -> str:
    """Write the base model's held-out loss as key=value pairs."""
    return f"step=0/{state.total_steps} rank=base eval_loss={format_loss(state.base_loss)}"


def _pairs(at: str, row: RankRow, state: RunState) -> str:
    rate = "-" if row.learning_rate is None else f"{row.learning_rate:g}"
    left = "-" if state.seconds_left is None else f"{state.seconds_left:.0f}"
    name = f"{row.rank} target_modules={row.targets}" if row.targets else str(row.rank)
    return (
        f"{at} rank={name} learning_rate={rate} seeds={row.seeds} train_loss={format_loss(row.train_loss)} "
        f"eval_loss={format_loss(row.eval_loss)} progress={state.share_done:.2f} seconds_left={left}"
    )


def solo_cost(result: SoloResult) -> str:
    """Describe the measured cost of a rank alone."""
    pace, peak = format_seconds(result.step_seconds), format_bytes(result.peak_bytes)
    return f"{arm_text((result.targets, result.rank))} solo: {pace} per step, peak memory {peak}"


def scales(trials: Sequence[TrialRecord]) -> str:
    """List the LoRA scale of each rank: scale 4 at rank 8, 0.25 at rank 128."""
    by_rank: dict[int, list[str]] = {}
    for trial in trials:
        by_rank.setdefault(trial.rank, []).append(f"{trial.scale:.4g}")
    return "scale " + ", ".join(f"{' or '.join(dict.fromkeys(one))} at rank {rank}" for rank, one in by_rank.items())


def outcome_line(trial_id: str, state: str, message: str) -> str:
    """Describe how a trial ended, with the last line of the reason, which holds a traceback's error."""
    reason = message.strip().splitlines()[-1] if message.strip() else ""
    return f"{trial_id} {state.replace('_', ' ')}" + (f": {reason}" if reason else "")
