"""Cold start: wall time and peak memory of encoding one sentence, by encode.py and by start_peer.py, in turn.

python -m tests.benchmarks.bench_start MODEL_FOLDER
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SENTENCE = "한 남자가 음식을 먹는다."
ROUNDS = 5


def main() -> None:
    folder = sys.argv[1]
    here = Path(__file__).parent
    encode = here.parents[1] / "encode.py"
    commands = {
        "encode.py": [sys.executable, str(encode), "-m", folder, SENTENCE],
        "sentence-transformers": [sys.executable, str(here / "start_peer.py"), folder, SENTENCE],
        "import torch": [sys.executable, "-c", "import torch"],
        "encode.py --help": [sys.executable, str(encode), "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    peaks: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            wall, peak = measure(command)
            seconds[name].append(wall)
            peaks[name].append(peak)
    typical_wall = {name: statistics.median(values) for name, values in seconds.items()}
    typical_peak = {name: statistics.median(values) for name, values in peaks.items()}
    for name in commands:
        line = {"command": name, "seconds": round(typical_wall[name], 2), "peak_mib": round(typical_peak[name])}
        print(json.dumps(line), flush=True)
    ratios = {
        "wall_ratio": round(typical_wall["encode.py"] / typical_wall["sentence-transformers"], 3),
        "peak_ratio": round(typical_peak["encode.py"] / typical_peak["sentence-transformers"], 3),
    }
    print(json.dumps(ratios), flush=True)


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident memory of a process, in MiB.

    The peak of a new process begins at that of its parent, so this script imports nothing large.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - start, usage.ru_maxrss / 1024  # Linux counts in KiB


if __name__ == "__main__":
    main()
