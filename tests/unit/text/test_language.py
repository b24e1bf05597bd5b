import pytest

from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.text.language import LANGUAGES, current_language, language, tr, trn
from lorascope.text.say import say


def test_values_are_filled_in_and_counts_choose_the_form() -> None:
    assert tr("rank {rank} of {total}", rank=8, total=3) == "rank 8 of 3"
    assert [trn("{count} pair", "{count} pairs", n) for n in (1, 2)] == ["1 pair", "2 pairs"]


def test_language_is_restored_after_its_context() -> None:
    assert current_language() == "en"
    for code in LANGUAGES:
        with language(code):
            assert current_language() == code
    assert current_language() == "en"


def test_braces_in_a_value_are_text() -> None:
    assert tr("model {name}", name="{evil}") == "model {evil}"


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no language 'xx'\n  -> use one of: en, ko"), language("xx"):
        pass


def test_untranslated_message_falls_back_to_english() -> None:
    with language("ko"):
        assert tr("training loss") == "학습 손실"
        assert tr("a message nobody wrote, {name}", name=1) == "a message nobody wrote, 1"
        one, two = (say(Message("verdict.noise_floor", typical=0.0021, pairs=pairs)) for pairs in (1, 2))
    assert one.replace("1개", "2개") == two
    assert "시드 쌍 2개" in two


@pytest.mark.parametrize(
    ("rank", "text"),
    [
        (1, "랭크 1은 1이 1을 1과 1로"),
        (2, "랭크 2는 2가 2를 2와 2로"),
        (4, "랭크 4는 4가 4를 4와 4로"),
        (8, "랭크 8은 8이 8을 8과 8로"),
        (10, "랭크 10은 10이 10을 10과 10으로"),
        (16, "랭크 16은 16이 16을 16과 16으로"),
        (100, "랭크 100은 100이 100을 100과 100으로"),
        (256, "랭크 256은 256이 256을 256과 256으로"),
        ("물", "랭크 물은 물이 물을 물과 물로"),
        ("값", "랭크 값은 값이 값을 값과 값으로"),
        ("크기", "랭크 크기는 크기가 크기를 크기와 크기로"),
        ("GB", "랭크 GB은(는) GB이(가) GB을(를) GB과(와) GB(으)로"),
    ],
)
def test_a_korean_particle_follows_the_sound_of_its_value(rank: int | str, text: str) -> None:
    with language("ko"):
        assert tr("랭크 {rank}은(는) {rank}이(가) {rank}을(를) {rank}과(와) {rank}(으)로", rank=rank) == text
