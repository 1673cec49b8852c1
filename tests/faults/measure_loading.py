"""Loads each folder of its arguments, after the first as a warm-up; prints a line of JSON for each.

The line is [error or null, seconds, growth of the peak of memory in kB]. It runs in a process of its own, because the peak
never falls.
"""

import json
import sys
import time
from pathlib import Path

from minisbert import SentenceEncoder


def peak() -> int:
    """The largest memory so far, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    SentenceEncoder.from_pretrained(sys.argv[1], device="cpu").encode("밥")
    for folder in sys.argv[1:]:
        before, start, error = peak(), time.perf_counter(), None
        try:
            SentenceEncoder.from_pretrained(folder, device="cpu").encode("밥")
        except Exception as caught:
            error = [type(caught).__name__, str(caught)]
        print(json.dumps([error, time.perf_counter() - start, peak() - before]), flush=True)
