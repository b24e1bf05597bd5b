"""Sentences of verdict, recommendation and cautions in English."""

import pytest

from lorascope.message import Message
from lorascope.text.say import say

EXCESS = (0.02, 0.015, 0.028)
SHOWN = "0.0200 (95% interval 0.0150 to 0.0280)"
LOWEST = Message("verdict.adequate_and_lowest", rank=256, p=0.0001)
ONLY = Message("advice.only_rank")
ABOVE = Message("advice.above", excess=(0.02, 0.015, 0.028), best=128)
MEMORY = Message("limit.peak_memory", amount=1_012_000_000, most=1_000_000_000)
NO_SECONDS = Message("limit.training_alone_unknown", most=600.0)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            Message("verdict.adequate_and_lowest", rank=128, p=0.0001),
            "Rank 128 is the smallest adequate rank (p < 0.001); its held-out loss is the lowest of all.",
        ),
        (
            Message("verdict.adequate", rank=128, p=0.0123, best=256, high=0.0031, tolerance=0.005),
            "Rank 128 is enough (p = 0.012): its held-out loss exceeds that of rank 256, the lowest, by at most 0.0031 "
            "nats a token (95% confidence, one-sided; tolerance 0.005).",
        ),
        (
            Message("verdict.equivalent", first=8, last=256, tolerance=0.005, p=0.0001),
            "No measurable difference between ranks 8 to 256: each is shown to be within 0.005 nats a token of every "
            "other (p < 0.001), and none to be worse than another. The smallest, rank 8, is enough.",
        ),
        (
            Message("verdict.above_another", excess=EXCESS),
            f"That it is above another rank at all is shown too, {SHOWN}.",
        ),
        (
            Message("verdict.unsettled", ranks=(8,), tolerance=0.005),
            "Too little data to tell whether rank 8 is enough, that is within 0.005 nats a token of the lowest loss.",
        ),
        (
            Message("verdict.unsettled", ranks=(8, 16, 128), tolerance=0.005),
            "Too little data to tell whether ranks 8, 16 and 128 are enough, that is within 0.005 nats a token of the "
            "lowest loss.",
        ),
        (Message("verdict.smallest_shown", rank=128), "Rank 128 is the smallest rank shown to be enough."),
        (Message("verdict.not_shown", ranks=(8,)), "That rank 8 is not enough is likely, but not shown."),
        (Message("verdict.not_shown", ranks=(8, 16)), "That ranks 8 and 16 are not enough is likely, but not shown."),
        (
            Message("verdict.one_rank", rank=8),
            "Only rank 8 has a held-out loss, so there is nothing to compare it with.",
        ),
        (Message("verdict.smaller", rank=8, excess=EXCESS), f"Rank 8 exceeds the lowest by {SHOWN}."),
        (
            Message("verdict.closest_smaller", rank=16, excess=EXCESS),
            f"Of the smaller ranks, 16 comes closest: it exceeds the lowest by {SHOWN}.",
        ),
        (
            Message("verdict.few", steps=80, rows=4, least=20),
            "Too short to tell: 80 steps, 4 held-out rows; a verdict needs 20 of each.",
        ),
        (
            Message("verdict.of_one_seed", verdict=(LOWEST,), seed=4),
            "In seed 4 alone, rank 256 is the smallest adequate rank (p < 0.001); its held-out loss is the lowest of "
            "all. The intervals cover the choice of held-out rows, not of seeds: ranks may stand otherwise in another. "
            "A second seed would show how far a difference moves from one to the next, and each further one makes its "
            "interval narrower.",
        ),
        (
            Message("verdict.of_seeds", verdict=(LOWEST, Message("verdict.more_rows")), seeds=3),
            "Rank 256 is the smallest adequate rank (p < 0.001); its held-out loss is the lowest of all. Hold out more "
            "rows, or train for more steps. The intervals cover the choice of held-out rows and of seeds (3 seeds).",
        ),
        (
            Message("verdict.so_far", step=40, total=80, verdict=(LOWEST, Message("verdict.more_seeds"))),
            "So far, at step 40 of 80: rank 256 is the smallest adequate rank (p < 0.001); its held-out loss is the "
            "lowest of all. Run more seeds.",
        ),
        (
            Message("verdict.noise_floor", pairs=1, typical=0.0021),
            "Noise floor: two seeds of the same rank end 0.0021 nats a token apart (root mean square of 1 pair).",
        ),
        (
            Message("verdict.noise_floor", pairs=6, typical=0.0021),
            "Noise floor: two seeds of the same rank end 0.0021 nats a token apart (root mean square of 6 pairs).",
        ),
        (Message("verdict.no_common_seed"), "No rank can be compared: no seed survived in all ranks."),
        (Message("verdict.all_ended_early"), "No rank can be compared: every trial ended early."),
        (Message("verdict.one_row"), "No rank can be compared: an interval needs at least two held-out rows."),
        (
            Message("verdict.not_finished", ended=2, total=3),
            "Not finished: 2 of 3 trials have their final held-out loss.",
        ),
    ],
)
def test_sentences_of_a_verdict(message: Message, text: str) -> None:
    assert say(message) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            Message(
                "advice.reasons",
                reasons=(Message("advice.lowest", loss=1.2), Message("advice.above", excess=EXCESS, best=128)),
            ),
            f"1.2000 nats a token, {SHOWN} above rank 128",
        ),
        (ONLY, "the only rank with a held-out loss"),
        (Message("advice.step_alone", step_seconds=0.4), "0.40 s a step when trained alone"),
        (Message("advice.state", size=32_000_000), "its adapter, gradient and optimizer take 32.0 MB"),
        (Message("advice.no_times"), "times were not measured"),
        (
            Message("advice.unsteady_times"),
            "cannot be told: repeats of the same step differed by more than 25 %",
        ),
        (
            Message("advice.smallest_enough", tolerance=0.005),
            "the smallest rank shown to be within 0.005 nats a token of the lowest loss",
        ),
        (
            Message("advice.smallest_enough_in_one_seed", tolerance=0.005),
            "the smallest rank shown, in one seed, to be within 0.005 nats a token of the lowest loss",
        ),
        (
            Message("advice.least_regret", regret=0.0021),
            "the best trade of loss against size, 0.0021 nats a token above the lowest on average",
        ),
        (MEMORY, "peak memory 1.01 GB (limit 1.00 GB)"),
        (Message("limit.peak_memory_unknown", most=9e9), "peak memory not measured (limit 9.00 GB)"),
        (Message("limit.training_alone", amount=37.12, most=600.0), "training alone 37.1 s (limit 10 min 00 s)"),
        (Message("limit.adapter", amount=12.8e6, most=13e6), "adapter 12.8 MB (limit 13.0 MB)"),
        (
            Message("limit.none_within", rank=8, over=(MEMORY, NO_SECONDS)),
            "No rank is within the limits; rank 8 comes nearest: peak memory 1.01 GB (limit 1.00 GB), training alone "
            "not measured (limit 10 min 00 s)",
        ),
        (
            Message(
                "change.beyond_limits",
                needs=(
                    Message("change.beyond_by", rank=128, what=(MEMORY, NO_SECONDS)),
                    Message("change.beyond_by", rank=256, what=(MEMORY,)),
                ),
            ),
            "Beyond the limits: rank 128 by its peak memory 1.01 GB (limit 1.00 GB), training alone not measured "
            "(limit 10 min 00 s); rank 256 by its peak memory 1.01 GB (limit 1.00 GB).",
        ),
        (Message("change.all_within_limits"), "Every rank is within the limits."),
        (Message("change.enough_from", tolerance=0.10062), "Proven if you accept 0.1006 nats a token."),
    ],
)
def test_sentences_of_a_recommendation(message: Message, text: str) -> None:
    assert say(message) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            Message("caution.underpowered_rows", rank=8, half=0.0097, tolerance=0.005, rows=1045),
            "The interval of rank 8 reaches 0.0097 nats a token to either side, more than the tolerance of 0.005. "
            "About 1,045 held-out rows would make it as narrow.",
        ),
        (
            Message("caution.underpowered_seeds", rank=8, half=0.0097, tolerance=0.005, seeds=2, more_seeds=8),
            "The interval of rank 8 reaches 0.0097 nats a token to either side, more than the tolerance of 0.005. "
            "With 8 seeds in place of 2 it would be as narrow.",
        ),
        (
            Message("caution.underpowered_very_far", rank=8, half=0.2, tolerance=0.005, most=16),
            "The interval of rank 8 reaches 0.2000 nats a token to either side, more than the tolerance of 0.005. "
            "Even 16 times the rows would not make it as narrow: accept a larger tolerance.",
        ),
        (
            Message("caution.underpowered_far", rank=8, half=0.2, tolerance=0.005, reach=0.02, most=16),
            "The interval of rank 8 reaches 0.2000 nats a token to either side, more than the tolerance of 0.005. "
            "Even 16 seeds would leave it at 0.0200: accept a larger tolerance.",
        ),
        (
            Message(
                "caution.below_capacity",
                rank=8,
                capacity=800_000.0,
                bits=2.0,
                tokens=40_000.0,
                held=134_690.0,
                bits_per_token=3.367,
                enough=237_580.0,
            ),
            "The run is shorter than where low ranks are known to fall behind. By a rule of thumb rank 8 can hold "
            "800.0 k bits (2 a parameter), and the roughly 40.0 k different target tokens trained on hold at most "
            "134.7 k (3.37 bits a token, the base model's held-out loss). From about 237.6 k target tokens on, more "
            "rank may help where it does not here.",
        ),
        (
            Message(
                "caution.environment_changed",
                changes=(
                    Message("caution.changed", name="torch", before="2.6.0", after="2.7.0"),
                    Message("caution.changed", name="peft", before=Message("caution.absent"), after="0.1"),
                    Message("caution.changed", name=Message("caution.processor"), before="one", after="Another"),
                ),
            ),
            "The study was continued in another environment (torch 2.6.0, later 2.7.0; peft absent, later 0.1; "
            "processor one, later Another). Losses before and after may differ in rounding, and times and memory were "
            "measured where each rank was first run.",
        ),
        (
            Message("caution.constant_scale", multiple=4.0),
            "at a constant scale (alpha = 4 r) a larger rank takes larger steps",
        ),
        (
            Message("caution.fixed_alpha", alpha=32.0),
            "at a fixed alpha of 32 the scale alpha / r is smaller for a larger rank",
        ),
        (Message("caution.rslora"), "the best learning rate may still depend on the rank"),
        (
            Message(
                "caution.eval_loss_rising",
                trials=(
                    Message("caution.lowest_and_last", trial="r8", lowest=1.2, last=1.3),
                    Message("caution.lowest_and_last", trial="r16", lowest=1.1, last=1.4),
                ),
            ),
            "The held-out loss rose again before the end, as in overfitting: r8 (lowest 1.2000, last 1.3000), r16 "
            "(lowest 1.1000, last 1.4000) nats a token.",
        ),
    ],
)
def test_sentences_of_a_caution(message: Message, text: str) -> None:
    assert say(message) == text
