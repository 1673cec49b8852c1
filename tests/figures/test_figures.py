"""Proves that the pictures are what the code computes today, that they are whole, and that README.md shows each."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.figures.draw import FIGURES, FOLDER

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.parametrize("name", FIGURES)
def test_the_file_is_what_is_drawn(name):
    drawn = FIGURES[name]()
    assert (FOLDER / name).read_text(encoding="utf-8") == drawn, "run: python -m tests.figures.draw"
    root = ElementTree.fromstring(drawn)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter():
        x, y = (float(element.attrib.get(axis, 0)) for axis in "xy")
        w, h = (float(element.attrib.get(side, 0)) for side in ("width", "height"))
        assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height, "drawn outside of the picture"


def test_every_picture_is_shown():
    assert {path.name for path in FOLDER.glob("*.svg")} == set(FIGURES)
    assert all(f"](tests/figures/{name})" in README.read_text(encoding="utf-8") for name in FIGURES)
