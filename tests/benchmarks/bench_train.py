"""Training speed: one step of KorNLI triplets by sentence-transformers and by minisbert, in turn, optimizer included.

python -m tests.benchmarks.bench_train --kornli DIR/KorNLI --tokenizers DIR --kinds roberta deberta

Each side runs in a process of its own, so that peak memory is its own too; they take turns `--rounds` times.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.models import full_size_folder, print_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kornli", type=Path, required=True, help="folder with xnli.dev.ko.tsv")
    parser.add_argument("--tokenizers", type=Path, required=True, help="folder with ko-mini-{roberta,bert,deberta}")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--kinds", nargs="+", default=["roberta", "deberta"])
    parser.add_argument(
        "--batch-size", type=int, default=64, help="triplets; with 64 the reference's DeBERTa needs more than 24 GB"
    )
    parser.add_argument("--steps", type=int, default=2, help="measured steps a round, after one to warm up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="measure ours under autocast to bfloat16 too")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run_side(args)
        return
    sides = ["minisbert", *(["minisbert bfloat16"] if args.bfloat16 else []), "sentence-transformers"]
    for kind in args.kinds:
        full_size_folder(kind, args.tokenizers, args.cache)
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        peaks: dict[str, float] = {}
        for _ in range(args.rounds):
            for side in sides:
                command = [
                    sys.executable,
                    "-m",
                    "tests.benchmarks.bench_train",
                    *sys.argv[1:],
                    "--kinds",
                    kind,
                    "--side",
                    side,
                ]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                result = json.loads(output.splitlines()[-1])
                seconds[side] += result["seconds"]
                peaks[side] = result["peak_mb"]
                print(kind, side, result, file=sys.stderr, flush=True)
        theirs = statistics.median(seconds["sentence-transformers"])
        for side in sides:
            ours = statistics.median(seconds[side])
            print_json(model=kind, side=side, seconds=round(ours, 2), peak_mb=round(peaks[side]), ratio=round(theirs / ours, 2))


def triplet_batches(kornli: Path, batch_size: int, count: int) -> Iterator[tuple[list[str], ...]]:
    """The same batches of triplets for both sides."""
    from minisbert.training.examples import NoDuplicatesBatches, nli_triplets, read_nli

    batches = NoDuplicatesBatches(nli_triplets(read_nli(kornli / "xnli.dev.ko.tsv"), seed=0), batch_size, seed=0)
    for batch, _ in zip(batches, range(count), strict=False):
        yield batch.texts


def run_side(args: argparse.Namespace) -> None:
    """Time the steps of one side; prints a line of JSON."""
    folder = full_size_folder(args.kinds[0], args.tokenizers, args.cache)
    batches = list(triplet_batches(args.kornli, args.batch_size, args.steps + 1))
    times = (
        steps_of_theirs(folder, batches, args) if args.side == "sentence-transformers" else steps_of_ours(folder, batches, args)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print_json(seconds=[round(seconds, 3) for seconds in times[1:]], peak_mb=peak)


def steps_of_ours(folder: Path, batches: list[tuple[list[str], ...]], args: argparse.Namespace) -> list[float]:
    """Seconds of each step of `fit`."""
    from minisbert import SentenceEncoder
    from minisbert.training import Batch, MultipleNegativesRankingLoss, Objective, Plan, fit

    model = SentenceEncoder.from_pretrained(folder, device=args.device)
    seconds: list[float] = []
    fit(
        model,
        [Objective([Batch(texts, None) for texts in batches], MultipleNegativesRankingLoss())],
        Plan(epochs=1, autocast="bfloat16" if "bfloat16" in args.side else "float32"),
        on_step=lambda report: seconds.append(report.seconds),
    )
    return seconds


def steps_of_theirs(folder: Path, batches: list[tuple[list[str], ...]], args: argparse.Namespace) -> list[float]:
    """Seconds of each step of `old_fit`, from its collation of a batch to that of the next."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.readers import InputExample

    model = SentenceTransformer(str(folder), device=args.device)
    starts: list[float] = []

    class Loader:
        collate_fn = None
        batch_size, dataset, sampler, batch_sampler = args.batch_size, (), None, None

        def __len__(self) -> int:
            return len(batches)

        def __iter__(self) -> Iterator[object]:
            for texts in batches:
                starts.append(time.perf_counter())
                yield self.collate_fn([InputExample(texts=list(row), label=0.0) for row in zip(*texts, strict=True)])

    model.old_fit([(Loader(), MultipleNegativesRankingLoss(model))], epochs=1, warmup_steps=0, show_progress_bar=False)
    return [end - start for start, end in zip(starts, [*starts[1:], time.perf_counter()], strict=True)]


if __name__ == "__main__":
    main()
