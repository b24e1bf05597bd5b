"""How the numbers of a study stand in a line of text."""

from collections.abc import Sequence
from statistics import median

from lorascope.cli.run_state import Board
from lorascope.records import CostRecord, TrialRecord
from lorascope.text.numbers import format_count, format_seconds
from lorascope.units import format_bytes


def loss(value: float | None) -> str:
    """Write a loss in nats a token, or a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def status(board: Board, rss_bytes: int) -> str:
    """Write the line on the whole: what is being done, pace, memory, time."""
    parts = [board.doing]
    if board.tokens_per_second is not None:
        parts.append(f"{format_count(board.tokens_per_second)} tokens/s")
    parts += [format_bytes(rss_bytes), f"{format_seconds(board.elapsed_seconds)} elapsed"]
    if board.seconds_left is not None:
        parts.append(f"{format_seconds(board.seconds_left)} left")
    return " · ".join(parts)


def alone(record: CostRecord) -> str:
    """Write what a rank costs when it trains alone."""
    measured = record.step_seconds[record.warmup_steps :] or record.step_seconds
    pace = f"{format_seconds(median(measured))} a step, " if measured else ""
    return f"rank {record.rank} alone: {pace}peak memory {format_bytes(record.peak_memory_bytes)}"


def scales(trials: Sequence[TrialRecord]) -> str:
    """Write what each rank's update is multiplied by: scale 4 at rank 8, 0.25 at rank 128."""
    by_rank = {trial.rank: trial.scale for trial in trials}
    return "scale " + ", ".join(f"{scale:.4g} at rank {rank}" for rank, scale in by_rank.items())


def ending(trial_id: str, state: str, message: str) -> str:
    """Write how a trial stands; of a long reason, such as a traceback, the last line says what happened."""
    reason = message.strip().splitlines()[-1] if message.strip() else ""
    return f"{trial_id} {state.replace('_', ' ')}" + (f": {reason}" if reason else "")
