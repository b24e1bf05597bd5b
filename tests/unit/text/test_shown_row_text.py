from lorascope.records import ShownRow
from lorascope.text.shown_rows import LONGEST_PIECE, heading, in_brackets, marked_pieces

ROW = ShownRow(row=2, pieces=("ask\x1b[2J\n", "tell</s>", "\tmore"), tokens=9, targets=4)


def test_targets_stand_in_brackets_and_controls_are_spelled_out() -> None:
    assert in_brackets(ROW) == "ask\\x1b[2J\n[[tell</s>]]\tmore"
    assert [is_target for _, is_target in marked_pieces(ROW)] == [False, True, False]
    assert heading(ROW) == "Row 2: 9 tokens, 4 targets"


def test_middle_of_a_long_piece_is_left_out() -> None:
    ((piece, _),) = marked_pieces(ShownRow(row=1, pieces=("a" * 5000 + "z" * 5000,), tokens=1, targets=0))
    assert piece == "a" * (LONGEST_PIECE // 2) + "[... 8,000 characters ...]" + "z" * (LONGEST_PIECE // 2)
