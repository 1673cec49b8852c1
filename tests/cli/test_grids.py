"""Proves that what a terminal shows is aligned, whatever the texts hold, and leaves the terminal as it is."""

import time
import unicodedata

import numpy as np
import pytest

from minisbert.cli.grids import RESET, clip, columns, printable, similarity_grid, table_of_texts

TEXTS = [
    "한 남자가 음식을 먹는다.",
    "cat",
    "",
    "\x1b[2J\x07탭\t줄\n바꿈",
    "e\u0301t\u0301",
    "中文",
    "　전각",
    "가" * 500,
]


@pytest.mark.parametrize("text", [*TEXTS, *(unicodedata.normalize("NFD", text) for text in TEXTS)])
@pytest.mark.parametrize("width", [1, 2, 7, 30])
def test_clipped_texts_have_the_width(text, width):
    clipped = clip(text, width)
    assert columns(clipped) == width
    assert clipped.isprintable()


def test_what_fits_is_shown_whole():
    assert clip("고양이", 6) == "고양이"
    assert clip("고양이", 5) == "고양…"
    assert clip(unicodedata.normalize("NFD", "고양이"), 6) == "고양이"


def test_control_characters_do_not_reach_the_terminal():
    assert printable("밥\x1b[31m\r\n\u2028\u200b") == "밥?[31m   ?"


def test_a_text_of_ten_megabytes_is_shown_at_once():
    start = time.perf_counter()
    similarity_grid(np.eye(2), ["가나다 " * 2_500_000, "b"], 80, colour=False)
    assert time.perf_counter() - start < 0.5


def test_a_grid_has_a_line_for_each_text():
    similarities = np.array([[1.0, -0.25], [-0.25, 1.0]])
    lines = similarity_grid(similarities, ["고양이는 물을 마신다.", "날씨가 춥다."], 40, colour=False).split("\n")
    assert lines == [
        "                                0     1",
        "   0  고양이는 물을 마신다.  1.00 -0.25",
        "   1  날씨가 춥다.          -0.25  1.00",
    ]


def test_columns_are_as_wide_as_their_numbers():
    lines = similarity_grid(np.array([[0.0, -123.4], [-123.4, 0.0]]), ["밥", "빵"], 40, colour=False).split("\n")
    assert lines == [
        "                       0       1",
        "   0  밥            0.00 -123.40",
        "   1  빵         -123.40    0.00",
    ]


def test_colours_follow_the_value_and_end():
    grid = similarity_grid(np.array([[1.0, 0.0], [-1.0, np.nan]]), ["밥", "빵"], 80, colour=True)
    assert "48;5;203m  1.00" in grid
    assert "48;5;255m  0.00" in grid
    assert "48;5;255m -1.00" in grid
    assert grid.count("\x1b[30;") == grid.count(RESET) == 4


def test_a_table_has_a_line_for_each_text():
    vectors = np.array([[3.0, 4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]], dtype=np.float32)
    assert table_of_texts(["밥", "한 남자가 음식을 먹는다."], vectors, 70).split("\n") == [
        "   0  |v|   5.000  [+3.000 +4.000 +0.000 +0.000 ...]  밥",
        "   1  |v|   1.000  [+0.000 +0.000 +0.000 +1.000 ...]  한 남자가 음식…",
    ]
