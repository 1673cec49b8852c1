"""Proves that README.ko.md says what README.md says, that links and pictures exist, and that shown snippets are tried ones."""

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


def test_other_libraries_are_shown_as_they_are_tried():
    section = ENGLISH.partition("## In other libraries")[2].partition("\n## ")[0]
    snippets = [path.read_text(encoding="utf-8") for path in (ROOT / "tests/clients/snippets").glob("*.py")]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2 and all(block in snippets for block in blocks)
    extra = re.search(r"\nclients = \[(.*?)\n\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL)
    shown = re.findall(r"^\| ([\w-]+) ([\d.]+) \|", section, re.MULTILINE)
    assert sorted(shown) == sorted(re.findall(r'"([\w-]+)>=([\d.]+)"', extra[1]))
