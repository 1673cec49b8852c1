"""Search in turn with sentence-transformers' util, and one query over saved vectors against one bare product.

python -m tests.benchmarks.bench_search --rows 20000 --width 256
python -m tests.benchmarks.bench_search --saved 1000000 --width 768

Prints for every task the median seconds of both sides and the median of the ratios within a round (theirs / ours); every other
round goes backwards. With --saved, a file of so many random vectors is made in --cache, and a query over it is timed against
`query @ vectors.T` over the same mapped file, each in turn; and the memory that a process owns (mapped pages of the file, which
the system keeps and takes back as it likes, are not in it) is told for a tenth of the rows and for all.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minisbert.search import community_detection, paraphrase_mining, semantic_search
from tests.benchmarks.models import print_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--saved", type=int, metavar="ROWS", help="measure one query over so many saved vectors instead")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    print_json(torch=torch.__version__, threads=torch.get_num_threads())
    if args.saved:
        measure_saved(args)
    else:
        measure_tasks(args)


def measure_tasks(args: argparse.Namespace) -> None:
    """Search, mining and groups on random vectors, a fifth of them near another one."""
    from sentence_transformers import util

    generator = np.random.default_rng(0)
    rows = generator.normal(size=(args.rows, args.width)).astype(np.float32)
    near = args.rows // 5
    rows[:near] = rows[-near:] + 0.5 * generator.normal(size=(near, args.width))
    vectors = torch.from_numpy(rows)
    tasks: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "one query": (lambda: semantic_search(vectors[:1], vectors), lambda: util.semantic_search(vectors[:1], vectors)),
        "all queries": (lambda: semantic_search(vectors, vectors), lambda: util.semantic_search(vectors, vectors)),
        "mining": (
            lambda: paraphrase_mining(vectors, args.threshold),
            lambda: util.paraphrase_mining_embeddings(vectors),
        ),
        "groups": (
            lambda: community_detection(vectors, args.threshold, 2),
            lambda: util.community_detection(vectors, args.threshold, 2),
        ),
    }
    for name, sides in tasks.items():
        compare(name, dict(zip(("ours", "theirs"), sides, strict=True)), args.rounds, rows=args.rows, width=args.width)


def compare(name: str, sides: dict[str, Callable[[], Any]], rounds: int, **fields: object) -> None:
    """Time two sides in turn; print the medians, and the ratio of the second to the first."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):  # the first one warms up
        for side in list(sides)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            sides[side]()
            seconds[side].append(time.perf_counter() - start)
    ours, theirs = (values[1:] for values in seconds.values())
    medians = {side: round(statistics.median(values[1:]), 4) for side, values in seconds.items()}
    ratio = statistics.median(second / first for first, second in zip(ours, theirs, strict=True))
    print_json(task=name, **fields, **medians, ratio=round(ratio, 2))


def measure_saved(args: argparse.Namespace) -> None:
    """One query over a mapped file, against one product; and the memory it takes."""
    path = args.cache / f"random-{args.saved}-{args.width}.npy"
    generator = np.random.default_rng(0)
    if not path.exists():
        saved = np.lib.format.open_memmap(path, "w+", np.float32, (args.saved, args.width))
        for begin in range(0, args.saved, 50_000):
            saved[begin : begin + 50_000] = generator.normal(size=saved[begin : begin + 50_000].shape)
        saved.flush()
    vectors = np.load(path, mmap_mode="c")  # torch warns of arrays that are read-only
    query = torch.from_numpy(generator.normal(size=(1, args.width)).astype(np.float32))
    semantic_search(query, vectors[:1000])
    for rows in (args.saved // 10, args.saved):
        before = owned_memory()
        semantic_search(query, vectors[:rows])
        print_json(task="memory", rows=rows, mebibytes=round(owned_memory() - before, 1))
    sides = {"product": lambda: query @ torch.from_numpy(vectors).T, "ours": lambda: semantic_search(query, vectors)}
    compare("one query over a mapped file", sides, args.rounds, rows=args.saved, width=args.width)


def owned_memory() -> float:
    """Resident memory of this process, MiB, without pages of files."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


if __name__ == "__main__":
    main()
