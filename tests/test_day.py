"""Proves that a day's work goes through, command by command, and that its model opens in sentence-transformers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("day.sh")


@pytest.mark.reference
def test_day(tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", SCRIPT, tmp_path / "day"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "before training, test: " in done.stderr and "after training, test: " in done.stderr
    assert done.stdout.startswith("SentenceTransformer(") or "\nSentenceTransformer(" in done.stdout
    for name in ("hits.tsv", "duplicates.tsv", "groups.tsv", "triplets.jsonl"):
        assert len((tmp_path / "day" / name).read_text(encoding="utf-8").splitlines()) >= 10, name
