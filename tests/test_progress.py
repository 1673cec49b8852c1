"""Proves that the progress bar appears where it is wanted, and shows what it is told."""

import sys

import pytest

from minisbert.progress import progress_bar


@pytest.fixture
def shown(capsys):
    """Everything that standard error got."""
    return lambda: capsys.readouterr().err


def use(bar):
    bar.advance(2)
    bar.move_to(3, total=7, before="file", after="loss 0.1")


def test_what_is_done_is_shown(shown):
    with progress_bar(5, show=True, leave=True) as bar:
        use(bar)
    first, *_, last = shown().strip("\r").split("\r")
    assert "0/5" in first
    assert last.startswith("file: ") and "3/7" in last and "loss 0.1" in last


def test_a_bar_is_removed_unless_it_is_to_stay(shown):
    with progress_bar(5, show=True) as bar:
        use(bar)
    assert shown().rsplit("\r", 2)[-2].isspace()


def test_bytes_have_units_and_a_total_that_comes_later(shown):
    with progress_bar(None, show=True, unit="B", leave=True) as bar:
        bar.move_to(1_500_000, total=3_000_000, before="a")
        bar.move_to(700, total=1000, before="b")
        bar.move_to(800, total=0, before="b")  # a server that does not tell the length
    last = shown().rsplit("\r", 1)[-1]
    assert last.startswith("b: ") and "800/1.00k" in last


def test_lines_are_written_above_the_bar(shown):
    with progress_bar(5, show=True) as bar:
        bar.write("encode.py: a note")
    assert "\rencode.py: a note\n" in shown()


def test_without_a_bar_only_lines_are_written(shown):
    with progress_bar(5, show=False) as bar:
        use(bar)
        bar.write("encode.py: a note")
    assert shown() == "encode.py: a note\n"


def test_by_default_it_is_for_terminals(shown, monkeypatch):
    with progress_bar(5, show=None):
        pass
    assert shown() == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress_bar(5, show=None):
        pass
    assert "0/5" in shown()
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(5, show=None) as bar:
        use(bar)
