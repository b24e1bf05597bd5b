from lorascope.language import LANGUAGES, current_language, language, tr, trn


def test_values_are_filled_in_and_counts_choose_the_form():
    assert tr("rank {rank} of {total}", rank=8, total=3) == "rank 8 of 3"
    assert [trn("{count} pair", "{count} pairs", n) for n in (1, 2)] == ["1 pair", "2 pairs"]


def test_a_language_holds_within_its_context_only():
    assert current_language() == "en"
    for code in LANGUAGES:
        with language(code):
            assert current_language() == code
    assert current_language() == "en"


def test_braces_in_a_value_are_text():
    assert tr("model {name}", name="{evil}") == "model {evil}"
