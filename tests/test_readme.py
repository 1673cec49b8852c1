"""Proves that the README's reading order names every file of the program, with the lines that it has."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_reading_order_is_complete_and_up_to_date():
    rows = re.findall(r"^\| \[(\S+\.py)\]\((\S+\.py)\) \| (\d+) \|", (ROOT / "README.md").read_text("utf-8"), re.M)
    files = [*sorted((ROOT / "minisbert").glob("*.py")), *sorted(ROOT.glob("*.py"))]
    assert sorted(link for _, link, _ in rows) == sorted(
        path.relative_to(ROOT).as_posix() for path in files if path.stem != "__init__"
    )
    for name, link, lines in rows:
        assert name == link
        assert len((ROOT / link).read_text("utf-8").splitlines()) == int(lines), name
