"""Answers of models on the page are text, whatever markup they hold."""

from collections.abc import Callable
from pathlib import Path

from lorascope.analysis import load_study, summarize_data
from lorascope.records import BASE_MODEL, SampleAnswer, SamplePrompt
from lorascope.store import StudyStore
from lorascope.web.monitor import Result
from lorascope.web.parts import render_result

TEXTS = {BASE_MODEL: "</pre><script>alert(1)</script>", "r8": "</textarea> one", "r128": "</textarea> two"}


def test_markup_in_answers_is_escaped(make_study: Callable[..., Path]) -> None:
    folder = make_study()
    prompt = SamplePrompt(
        place=1, row=3, prompt="<img src=x>", truth="</div>", prompt_tokens=4, truth_tokens=2, continued=False
    )
    with StudyStore.create(folder / "study.db") as store:
        store.put(prompt)
        store.put_all(
            [
                SampleAnswer(
                    trial_id=name, place=1, text=text, tokens=9, ended=True, max_new_tokens=64, temperature=0.0,
                    seconds=0.1, error=None,
                )
                for name, text in TEXTS.items()
            ]
        )  # fmt: skip
    data = load_study(folder)
    html = str(render_result(Result(data=data, summary=summarize_data(data)), "en")["result"])
    assert not any(markup in html for markup in ("<script", "<img", "<textarea", "</textarea"))
    assert "<pre>&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;</pre>" in html
    assert "<pre>&lt;/textarea&gt; <mark>two</mark></pre>" in html
    assert html.count("<pre") == html.count("</pre>")
