"""Numbers as people read them, in the language in use.

A decimal point and a comma between thousands are the same in all languages.
"""

import math
from collections.abc import Sequence
from datetime import datetime

from lorascope.text.language import current_language, tr


def format_seconds(seconds: float) -> str:
    """Write a duration as people say it: 6.2 ms, 0.84 s, 12.3 s, 4 min 05 s, 2 h 03 min."""
    if 0 < seconds < 0.01:
        return tr("{milliseconds:.1f} ms", milliseconds=1000 * seconds)
    if seconds < 10:
        return tr("{seconds:.2f} s", seconds=seconds)
    if seconds < 60:
        return tr("{seconds:.1f} s", seconds=seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return tr("{minutes} min {seconds:02d} s", minutes=minutes, seconds=rest)
    hours, minutes = divmod(minutes, 60)
    return tr("{hours} h {minutes:02d} min", hours=hours, minutes=minutes)


def format_about(seconds: float) -> str:
    """Write a rough duration: 20 s, 7 min, 1.5 h."""
    if seconds < 100:
        return tr("{seconds} s", seconds=max(1, round(seconds)) if seconds < 10 else 10 * round(seconds / 10))
    if seconds < 90 * 60:
        return tr("{minutes} min", minutes=round(seconds / 60))
    return tr("{hours} h", hours=f"{seconds / 3600:.2g}" if seconds < 36000 else f"{seconds / 3600:.0f}")


def format_count(count: float) -> str:
    """Write a large count short: 921, 20.6 k, 3.4 M, 1.2 B."""
    code = current_language()
    if code != "en" and count >= 1e4:
        from babel.numbers import format_compact_decimal  # noqa: PLC0415 - English does without

        # Korean counts in groups of four digits; three digits in all are enough to read
        leading = (len(str(round(count))) - 1) % 4 + 1
        return format_compact_decimal(round(count), locale=code, fraction_digits=max(0, 3 - leading))
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1000 if letter == 'k' else limit):.1f} {letter}"
    return f"{count:,.0f}"


def format_time(moment: str) -> str:
    """Write a point in time, given in ISO 8601: in English as it is, else as people who speak the language do."""
    code = current_language()
    if code == "en":
        return moment
    from babel.dates import format_date  # noqa: PLC0415 - English does without

    found = datetime.fromisoformat(moment)
    zone = f" ({found.tzname()})" if found.tzinfo else ""
    return f"{format_date(found, format='long', locale=code)} {found:%H:%M:%S}{zone}"


def nats(value: float) -> str:
    """Write a loss or a difference: 0.0210."""
    return f"{value:z.4f}"


def interval(value: float, low: float, high: float) -> str:
    """Write a difference and its interval: 0.0210 (95% interval 0.0150 to 0.0280)."""
    return tr("{value} (95% interval {low} to {high})", value=nats(value), low=nats(low), high=nats(high))


def points(value: float) -> str:
    """Write a share, or a difference of shares, in hundredths: 3.1."""
    return f"{100 * value:z.1f}"


def bare_points(value: float) -> str:
    """Write a difference of shares without its direction: 3.1 points."""
    return tr("{value} points", value=points(value))


def fewer_points(value: float) -> str:
    """Write how far a share is below another: 3.1 points fewer."""
    return tr("{value} points fewer", value=points(value))


def fewer_points_interval(value: float, low: float, high: float) -> str:
    """Write the same and its interval: 3.1 points fewer (95% interval -1.0 to 7.2)."""
    return tr(
        "{value} points fewer (95% interval {low} to {high})", value=points(value), low=points(low), high=points(high)
    )


def decimals(half: float) -> int:
    """Return the digits behind the point that an interval of this half width supports: two of its own."""
    return min(4, max(1, 1 - math.floor(math.log10(half)))) if half > 0 else 4


def difference(value: float, low: float, high: float) -> str:
    """Write a difference and its interval: +0.021 (+0.015 to +0.028)."""
    digits = decimals((high - low) / 2)
    return tr(
        "{value} ({low} to {high})",
        **{name: f"{end:+z.{digits}f}" for name, end in (("value", value), ("low", low), ("high", high))},
    )


def upper(value: float, low: float, high: float) -> str:
    """Write the upper end of an interval, without a sign."""
    del value
    return f"{high:z.{decimals((high - low) / 2)}f}"


def fraction(share: float) -> str:
    """Write a share below 1: 1/8 where it is one over a whole number, else 38 %."""
    return f"1/{round(1 / share)}" if abs(1 / share - round(1 / share)) < 1e-9 else f"{share:.0%}"


def one_of(values: Sequence[object]) -> str:
    """Name alternatives: 8; 8 or 16; 8, 16 or 32."""
    names = [str(value) for value in values]
    if len(names) == 1:
        return names[0]
    return tr("{names} or {last}", names=", ".join(names[:-1]), last=names[-1])


def ranks(values: Sequence[int]) -> str:
    """Name ranks: rank 8; ranks 8 and 16; ranks 8, 16 and 32."""
    names = [str(value) for value in values]
    if len(names) == 1:
        return tr("rank {rank}", rank=names[0])
    return tr("ranks {ranks} and {last}", ranks=", ".join(names[:-1]), last=names[-1])


def chance(p: float) -> str:
    """Write a p-value: p = 0.012, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def upper_first(text: str) -> str:
    """Begin a title."""
    return text[0].upper() + text[1:]


def lower_first(text: str) -> str:
    """Let a sentence go on after another's beginning."""
    return text[0].lower() + text[1:]


def arm_text(arm: tuple[str, int]) -> str:
    """Name a rank, and its set of target modules where a study has several, for the terminal."""
    targets, rank = arm
    return f"rank {rank} of {targets}" if targets else f"rank {rank}"
