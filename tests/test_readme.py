"""Proves that README.ko.md says what README.md says: the same commands, numbers and pictures; and that its links exist."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, KOREAN = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
BLOCK = re.compile(r"```.*?```", re.DOTALL)


def test_commands_are_the_same():
    # The tree is translated: of it, the names of the files must be the same.
    english, korean = BLOCK.findall(ENGLISH), BLOCK.findall(KOREAN)
    assert len(english) == len(korean)
    for one, other in zip(english, korean, strict=True):
        if one.startswith("```console") or one.startswith("```python"):
            assert other == one
        else:
            assert re.findall(r"\S+\.(?:py|md)|\S+/", other) == re.findall(r"\S+\.(?:py|md)|\S+/", one)


def test_numbers_are_the_same():
    english, korean = (Counter(re.findall(r"\d+(?:[.,]\d+)*", BLOCK.sub("", text))) for text in (ENGLISH, KOREAN))
    assert english == korean


def test_flags_are_the_same():
    english, korean = (set(re.findall(r"--[a-z][\w-]+", text)) for text in (ENGLISH, KOREAN))
    assert english == korean


def test_links_and_pictures_exist():
    for text in (ENGLISH, KOREAN):
        for target in re.findall(r"\]\(([^):]+)\)", text):
            assert (ROOT / target).exists(), target
    assert re.findall(r"!\[.*\]\((.*)\)", ENGLISH) == re.findall(r"!\[.*\]\((.*)\)", KOREAN)
