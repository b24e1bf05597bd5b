"""Caveats in a few words."""

from typing import get_args

from lorascope.analysis.verdict.schema import CautionKind
from lorascope.text.caveats import GRAVE, caveat_names


def test_every_kind_of_caution_has_words_for_a_first_screen() -> None:
    names = caveat_names()
    assert set(names) == set(get_args(CautionKind))
    assert len(set(names.values())) == len(names)
    assert set(GRAVE) <= set(names)
    assert max(len(words.split()) for words in names.values()) <= 7
