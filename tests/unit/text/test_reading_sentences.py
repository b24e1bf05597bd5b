"""Sentences of readings and costs in English."""

import pytest

from lorascope.message import Message
from lorascope.text.say import say

FULL = Message("tradeoff.full_not_run")
LOSSES = (Message("naive.rank_loss", rank=128, loss=1.2), Message("naive.rank_loss", rank=8, loss=1.3))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            Message("tradeoff.parameters", rank=128, share=0.04758, parameters=134_515_008, size=25_600_000),
            "Gained at rank 128: 4.76% of the base model's 134.5 M parameters are trained, and the adapter takes "
            "25.6 MB.",
        ),
        (
            Message("tradeoff.memory", size=640_460_032, full=2_152_240_128, bytes=16),
            "Frozen base, adapter, gradient and optimizer take 640.5 MB; full fine-tuning would take 2.15 GB, a "
            "prediction from 16 bytes a parameter (float32 with AdamW). Activations come on top of both.",
        ),
        (
            Message("tradeoff.loss_fell", change=0.5, before=1.7, after=1.2),
            "The held-out loss fell by 0.5000 nats a token, from 1.7000 to 1.2000.",
        ),
        (
            Message("tradeoff.cost", text=FULL),
            "Cost: full fine-tuning was not run, so what LoRA itself costs in loss is not known here.",
        ),
        (
            Message("tradeoff.cost_against_largest", largest=256, excess=(0.02, 0.015, 0.028)),
            "Cost: its held-out loss minus that of rank 256, the largest, is 0.0200 (95% interval 0.0150 to 0.0280).",
        ),
        (Message("knee.nothing_to_compare"), "Fewer than two ranks can be compared, so there is no knee."),
        (
            Message("knee.none", larger=64, smaller=32, gain=0.02),
            "No knee up to rank 64: the last step, from rank 32, still gains 0.0200 nats a token for each doubling.",
        ),
        (
            Message("knee.shown", knee=8, most=0.001, tolerance=0.005),
            "The knee is rank 8: beyond it the most that a doubling gains is 0.0010 nats a token, which is below the "
            "tolerance of 0.005, and so is its whole 95% interval.",
        ),
        (
            Message("knee.estimated", knee=16, most=0.0045, tolerance=0.005, reach=0.0055),
            "The knee is rank 16: beyond it the most that a doubling gains is 0.0045 nats a token, which is below the "
            "tolerance of 0.005, but its interval reaches 0.0055.",
        ),
        (Message("knee.before", gain=0.02), "Up to it the last doubling gains 0.0200."),
        (
            Message("naive.script", rate=3e-4, rank=128, ranks=LOSSES),
            "The usual script, with one learning rate (0.0003) and the training loss at the end, would choose rank "
            "128: rank 128 1.2000, rank 8 1.3000.",
        ),
        (
            Message("naive.script_cut_short", rate=3e-4, steps=40, rank=128, ranks=LOSSES),
            "The usual script, with one learning rate (0.0003) and the training loss after 40 steps (the most that "
            "all ranks were trained for at one rate), would choose rank 128: rank 128 1.2000, rank 8 1.3000.",
        ),
        (
            Message("naive.held_out", ranks=(Message("naive.rank", rank=8), Message("naive.rank", rank=128))),
            "Held-out rows order the ranks otherwise at that rate: rank 8, rank 128.",
        ),
        (
            Message("naive.best_rates", ranks=(Message("naive.rank_at_rate", rank=8, loss=1.3, rate=1e-4),)),
            "Each at its own best rate, held-out rows order them: rank 8 1.3000 (at 0.0001).",
        ),
        (Message("naive.same_rank", rank=128), "This study names rank 128 too."),
        (
            Message("naive.other_rank", rank=8),
            "This study names rank 8 instead.",
        ),
        (Message("naive.one_rank"), "There is one rank, so there is nothing to order."),
        (
            Message("naive.no_order"),
            "There is no naive reading: at no learning rate do all ranks have a loss at one step.",
        ),
        (
            Message("alpha.proportional", multiple=4.0, scale=4.0),
            "Alpha is 4 r, so the update of every rank is multiplied by 4.",
        ),
        (
            Message(
                "alpha.fixed", alpha=32.0, formula="alpha / sqrt(r)", low=8, low_scale=11.3137085, high=128,
                high_scale=2.8284271,
            ),
            "Alpha is 32 for every rank, so the update is multiplied by alpha / sqrt(r): 11.3137 at rank 8, 2.82843 "
            "at rank 128.",
        ),
        (
            Message(
                "alpha.given",
                scales=(Message("alpha.scale_at_rank", scale=1.0, rank=8),
                        Message("alpha.scale_at_rank", scale=0.5, rank=128)),
            ),
            "Alpha was given for each rank; the update is multiplied by 1 at rank 8, 0.5 at rank 128.",
        ),
        (
            Message("alpha.theory_proportional", power=0.5, factor=5.65685, low=8, high=256),
            "At one learning rate a larger rank takes larger steps: theory (muA, arXiv 2602.06204) expects the best "
            "learning rate to fall as r^-0.5, by a factor of 5.7 from rank 8 to 256.",
        ),
        (
            Message("alpha.theory", power=0.25, factor=2.0, low=8, high=128),
            "Theory (muA, arXiv 2602.06204) expects the best learning rate to fall as r^-0.25, by a factor of 2.0 "
            "from rank 8 to 128.",
        ),
    ],
)  # fmt: skip
def test_sentences_of_readings(message: Message, text: str) -> None:
    assert say(message) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            Message("costs.too_few_steps"),
            "Too few steps were measured to say which rank's steps vary least; --cost full measures more.",
        ),
        (
            Message("costs.steadiest_time", rank=64, spread=0.00995),
            "Rank 64 has the steadiest steps: the middle half of them lies within 1.0% of their median.",
        ),
        (
            Message("costs.steadiest_time_unknown", apart=0.19512),
            "Which rank's steps vary least cannot be told: one rank's turns differ by 19.5% themselves.",
        ),
        (
            Message("costs.bandwidth_rank", rank=64, share=0.095),
            "Rank 64 leans most on memory bandwidth: 9.5% of its step.",
        ),
        (
            Message("costs.bandwidth_unknown", apart=0.19512),
            "Which rank leans most on memory bandwidth cannot be told: one rank's turns differ by 19.5% in time.",
        ),
        (Message("costs.bandwidth_alike"), "The ranks lean on memory bandwidth alike."),
        (
            Message("costs.arithmetic", rank=8, arithmetic=0.73, bandwidth=0.049),
            "Rank 8 is held up by arithmetic: at the rate of a large product its matrix products take 73% of the "
            "step, moving their operands 5%.",
        ),
        (
            Message("costs.overhead", rank=8, arithmetic=0.3, bandwidth=0.4),
            "Rank 8 is held up by overhead: at this machine's best rates its matrix products would take 30% of the "
            "step and moving their operands 40%.",
        ),
        (Message("costs.no_traffic"), "This machine offers its users no reading of memory bandwidth."),
        (
            Message("costs.traffic", size=1.5e9),
            "The whole machine moved 1.50 GB a second between processors and memory.",
        ),
        (
            Message(
                "caution.memory_not_returned", left=(Message("caution.left_behind", size=20_000_000, rank=8),)
            ),
            "Memory was not back at its base after ranks had run alone (20.0 MB after rank 8): peaks of ranks "
            "measured later may hold what earlier ones left.",
        ),
        (
            Message("caution.unsteady_steps", unlike=(Message("caution.pace_spread", rank=8, share=0.25),)),
            "The steps that each rank took alone, on the same rows, differed in time between its turns (rank 8 by "
            "25%): the machine did other things as well, or its pace changed. Smaller differences between ranks are "
            "noise.",
        ),
        (
            Message("caution.larger_faster", larger=64, smaller=8, fast=2.0, slow=4.0),
            "Rank 64 took 2.00 s a step and rank 8, which computes less, 4.00 s: the machine's pace changed between "
            "their turns, and their times cannot be compared.",
        ),
    ],
)  # fmt: skip
def test_sentences_of_measured_costs(message: Message, text: str) -> None:
    assert say(message) == text
