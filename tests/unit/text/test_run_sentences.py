"""Sentences of a run about rows, model and trials, in English and Korean."""

import pytest

from lorascope.message import Message
from lorascope.text.language import language
from lorascope.text.say import say
from support.messages import verbatim


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message("asked"), "as asked"),
        (
            Message("rows.truncated", split="train[:50%]", tokens=40, rows=2000, count=31),
            "Rows of 'train[:50%]' cut at max_length (40 tokens), of 2,000: 31.",
        ),
        (
            Message("rows.dropped_no_answer", split="train", rows=23, count=1),
            "Conversations of 'train' without a turn of the assistant, dropped from 23: 1.",
        ),
        (
            Message("rows.cut_before_target", split="train", rows=22, tokens=20, count=1),
            "Rows of 'train' cut at max_length (20 tokens) before their first target, dropped from 22: 1.",
        ),
        (
            Message("rows.fewer_held_out", asked=8, count=6),
            "Held-out rows, instead of 8, as rows of one prompt stay together: 6.",
        ),
        (
            Message("rows.shared_prompt", count=5),
            "Training rows with the prompt of a held-out row, dropped: 5.",
        ),
        (Message("rows.eval_repeats", count=1), "Held-out rows that repeat another one exactly, dropped: 1."),
        (Message("rows.train_repeats", count=3), "Training rows that repeat another row exactly, kept: 3."),
        (Message("rows.separator", file="a.csv", separator="\t"), "The cells of a.csv are separated by '\\t'."),
        (
            Message("rows.near_copies", count=1200),
            "Prompts that differ from another one only in case, white space, line ends or Unicode form, or whose rows "
            "are equal within max_length, kept on its side of the split: 1,200.",
        ),
        (
            Message("rows.whole_conversations"),
            "All conversations open with the same prompts, so the split keeps whole conversations apart, up to their "
            "last answer: held-out rows share their opening with training rows.",
        ),
        (Message("rows.part", name="a/b", count=700, size=1000), "Rows of a/b that are used: 700 of 1,000."),
        (
            Message("rows.similar", count=30, share=0.8),
            "Prompts of rows with about 80% or more of their text in common (MinHash), kept on one side of the split: "
            "30.",
        ),
        (Message("rows.unnamed_columns", file="a.csv", count=1), "Columns of a.csv without a name, left out: 1."),
        (
            Message("rows.blanks_in_header", file="a.csv", names=("' a'", "'b '")),
            "Blanks around column names of a.csv were removed: ' a', 'b '.",
        ),
        (Message("kernels.timeout", compiler="g++", seconds=120), "g++ did not compile them in 120 seconds"),
        (Message("kernels.not_compiled", compiler="g++", error="what?"), "g++ could not compile them: what?"),
        (
            Message("kernels.agree", how=Message("kernels.compiled", compiler="g++"), modules=91, difference=2.1e-6),
            "compiled with g++; 91 modules replaced, logits agree to 2.1e-06 on this model",
        ),
        (
            Message("kernels.differ", difference=0.251),
            "logits computed by the compiled kernels differ by 25.1% on this model",
        ),
        (
            Message("kernels.refused", error="what is this?"),
            "this model cannot be computed by the compiled kernels (what is this?)",
        ),
        (Message("packing.agrees"), "packed logits agree with the model's own"),
        (Message("packing.differs", difference=0.5), "packed logits differ from padded ones by 50.0% on this model"),
        (
            Message("note.no_kernels", reason=Message("kernels.no_compiler")),
            "Steps are computed without compiled kernels, which takes longer (no C++ compiler is here).",
        ),
        (
            Message("rank.above_layers", rank=9, layers="k_proj", limit=8),
            "Rank 9 is more than the update of some layers can have (k_proj: 8 at most).",
        ),
        (
            Message("trial.behind", loss=1.25, step=9, lowest=1.0),
            "held-out loss 1.2500 after step 9, the best learning rate's 1.0000",
        ),
        (Message("trial.exploded", step=3, loss=123.456), "the loss of step 3 exploded (123.5 nats a token)"),
        (Message("trial.eval_not_finite", step=1), "the held-out loss after step 1 is not finite"),
        (verbatim("Traceback: it lasted {3} s"), "Traceback: it lasted {3} s"),
    ],
)
def test_sentences_of_a_run_in_english(message: Message, text: str) -> None:
    assert say(message) == text
    assert say(Message.of_json(message.to_json())) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            Message("rows.truncated", split="train", tokens=512, rows=2000, count=31),
            "'train'에서 max_length(512토큰)로 잘린 샘플: 2,000개 중 31개.",
        ),
        (Message("trial.exploded", step=3, loss=123.456), "3번째 스텝의 손실이 폭주함(123.5 nats/토큰)"),
        (Message("trial.gradient_not_finite", step=41), "41번째 스텝의 그래디언트가 유한하지 않음"),
        (verbatim("Traceback: it lasted 3 s"), "Traceback: it lasted 3 s"),
    ],
)
def test_sentences_of_a_run_in_korean(message: Message, text: str) -> None:
    with language("ko"):
        assert say(message) == text


def test_sentences_nest_in_korean() -> None:
    how = Message("kernels.compiled", compiler="g++")
    with language("ko"):
        text = say(Message("kernels.agree", how=how, modules=91, difference=2.1e-6))
    assert "compiled" not in text
    assert all(part in text for part in ("g++", "모듈 91개", "2.1e-06"))
