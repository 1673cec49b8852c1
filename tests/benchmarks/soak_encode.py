"""Does the memory of encode.py stay flat, however many lines come? Pipes short lines into it and watches.

    python tests/benchmarks/soak_encode.py --model FOLDER --rows 2000000

Prints, at intervals, how many rows a second went in and the resident memory of encode.py. Linux only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ENCODE = Path(__file__).resolve().parents[2] / "encode.py"
WORDS = "한 남자가 밥을 먹는다 두 아이가 길을 달린다 고양이는 물을 마신다 날씨가 춥다".split()
LINES_AT_ONCE = 1000


def lines(rows: int) -> Iterator[bytes]:
    """Short Korean lines, all different, some thousand at a time."""
    for begin in range(0, rows, LINES_AT_ONCE):
        numbers = range(begin, min(begin + LINES_AT_ONCE, rows))
        yield "".join(f"{WORDS[n % 7]} {WORDS[n // 7 % len(WORDS)]} {n}\n" for n in numbers).encode()


def resident_mib(process_id: int) -> float:
    """Memory that a process occupies now, in MiB."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def soak(model: str, rows: int, interval: int, output: Path) -> Iterator[tuple[int, float, float]]:
    """Pipe `rows` lines into encode.py; yields rows so far, seconds so far and MiB, every `interval` rows."""
    command = [sys.executable, str(ENCODE), "-m", model, "-i", "-", "-o", str(output), "--device", "cpu"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        sent = 0
        for block in lines(rows):
            process.stdin.write(block)
            sent += block.count(b"\n")
            if sent % interval == 0:
                yield sent, time.perf_counter() - start, resident_mib(process.pid)
        process.stdin.close()
    if process.returncode:
        raise SystemExit(f"encode.py ended with exit code {process.returncode}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True, help="a folder; a tiny model shows a leak soonest")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--interval", type=int, default=100_000, help="rows between two lines of the report")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "x.npy"
        for rows, seconds, mib in soak(args.model, args.rows, args.interval, output):
            print(f"{rows:>9} rows  {rows / seconds:8.0f} rows/s  {mib:7.0f} MiB", flush=True)
        print(f"{os.path.getsize(output)} bytes of vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
