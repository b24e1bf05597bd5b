"""Charts in another script are drawn with its letters, or not at all."""

import pytest

from lorascope.charts import fonts
from lorascope.charts.plots.loss_by_rank import LossByRank, RankPoint, loss_by_rank_spec
from lorascope.charts.render import svg_to_png, to_svg
from lorascope.errors import InputError
from lorascope.text.language import language

POINTS = LossByRank(metric="eval_loss", points=(RankPoint(rank=8, value=1.3, low=1.2, high=1.4),), tolerance=None)


def test_missing_glyphs_look_alike() -> None:
    assert fonts.has_letters("Aé")
    assert not fonts.has_letters("\U000f0000\U000f0001")  # private: no font draws them


def test_fonts_for_english_are_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "has_letters", pytest.fail)
    fonts.check_fonts()


def test_missing_font_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "has_letters", lambda _: False)
    monkeypatch.setattr(fonts, "_PACKAGES", {"ko": "lorascope-fonts-that-nobody-has"})
    with language("ko"), pytest.raises(InputError, match="no font on this machine has Korean letters") as error:
        fonts.check_fonts()
    assert "pip install lorascope-fonts-that-nobody-has" in error.value.remedy
    assert error.value.exit_code == 2


def test_font_of_the_extra_draws_hangul() -> None:
    with language("ko"):
        fonts.check_fonts()
        assert fonts.has_letters("가힣학습률")
        assert fonts.font_family().startswith("Noto Sans KR, ")
        spec = loss_by_rank_spec(POINTS, (8,))
        assert "검증 손실 (nats/토큰)" in to_svg(spec)
        korean = svg_to_png(to_svg(spec))
    assert korean != svg_to_png(to_svg(loss_by_rank_spec(POINTS, (8,))))
    assert "Noto" not in fonts.font_family()
