"""Encoding speed: sentence-transformers and minisbert in turn, same weights, same dtype, same sentences.

python -m tests.benchmarks.bench_encode --korsts DIR/KorSTS --tokenizers DIR/models --kinds roberta deberta --dtypes float32

Prints sentences per second for every round and, at the end, the medians and two ratios: ours against the best batch size of
sentence-transformers, and against its default (32). A ratio is the median over the rounds of the ratio within a round, and
every other round goes backwards, so that a machine that slows down or speeds up meanwhile favours nobody. Every contender has
a process of its own, since the memory that one leaves behind slows down the next, or speeds it up. `--parts` measures where
our time goes.
"""

import argparse
import multiprocessing
import operator
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minisbert import SentenceEncoder
from minisbert.devices import batch_budget
from minisbert.text.batching import plan_batches
from tests.benchmarks.models import full_size_folder, korsts_sentences, print_json

DEFAULT_BATCH_SIZE = 32  # of sentence-transformers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--korsts", type=Path, required=True, help="folder with sts-train.tsv")
    parser.add_argument("--tokenizers", type=Path, required=True, help="folder with ko-mini-{roberta,bert,deberta}")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--kinds", nargs="+", default=["roberta", "bert", "deberta"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[16, 32, 64, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--backend",
        choices=["torch", "onnx", "openvino"],
        default="torch",
        help="of sentence-transformers; the others are for float32 and need the package optimum",
    )
    parser.add_argument("--compile", action="store_true", help="measure ours compiled too")
    parser.add_argument("--parts", action="store_true", help="measure where our time goes: tokenising, products, padding")
    args = parser.parse_args()
    sentences = korsts_sentences(args.korsts, args.sentences)
    print_json(device=device_name(args.device), torch=torch.__version__, threads=torch.get_num_threads())
    for kind in args.kinds:
        for dtype in args.dtypes:
            measure(args, kind, getattr(torch, dtype), sentences)


def measure(args: argparse.Namespace, kind: str, dtype: torch.dtype, sentences: list[str]) -> None:
    """Run every contender `rounds` times in turn and print medians and ratios."""
    folder = full_size_folder(kind, args.tokenizers, args.cache)
    names = ["minisbert", *(["minisbert compiled"] if args.compile else [])]
    names += [f"sentence-transformers {size}" for size in args.batch_sizes]
    contenders: dict[str, Connection] = {}
    processes = []
    for name in names:
        contenders[name], other_end = multiprocessing.Pipe()
        settings = (name, args.backend, folder, args.device, dtype, sentences, other_end)
        processes.append(multiprocessing.get_context("spawn").Process(target=serve, args=settings, daemon=True))
        processes[-1].start()
        other_end.close()  # so that `recv` fails if the process does
        contenders[name].recv()  # it is warm
    speeds: dict[str, list[float]] = {name: [] for name in names}
    vectors = {}
    for number in range(args.rounds):
        for name in names[:: -1 if number % 2 else 1]:
            contenders[name].send("encode")
            seconds, vectors[name] = contenders[name].recv()
            speeds[name].append(len(sentences) / seconds)
        print(*(f"{name} {values[-1]:.1f}" for name, values in speeds.items()), sep=", ", file=sys.stderr, flush=True)
    for connection, process in zip(contenders.values(), processes, strict=True):
        connection.send("end")
        process.join()
    median = {name: statistics.median(values) for name, values in speeds.items()}
    for name in ("minisbert", "minisbert compiled"):
        if name in names:
            ratios = {
                size: statistics.median(map(operator.truediv, speeds[name], speeds[f"sentence-transformers {size}"]))
                for size in args.batch_sizes
            }
            best = min(ratios, key=ratios.__getitem__)
            print_json(
                contender=name,
                model=kind,
                dtype=str(dtype).removeprefix("torch."),
                sentences_per_second=round(median[name], 1),
                best_batch_size_of_theirs=best,
                theirs_at_best=round(median[f"sentence-transformers {best}"], 1),
                ratio_to_best=round(ratios[best], 2),
                ratio_to_default=round(ratios[DEFAULT_BATCH_SIZE], 2) if DEFAULT_BATCH_SIZE in ratios else None,
                largest_difference=float(np.abs(vectors[name] - vectors[f"sentence-transformers {best}"]).max()),
            )
    if args.parts:
        model = SentenceEncoder.from_pretrained(folder, device=args.device, dtype=dtype)
        measure_parts(model, sentences)


def serve(
    name: str,
    backend: str,
    folder: Path,
    device: str,
    dtype: torch.dtype,
    sentences: list[str],
    connection: Connection,
) -> None:
    """What the process of a contender does: warm up, then encode as often as asked and answer with seconds and vectors."""
    encode = encoding_function(name, backend, folder, device, dtype)
    # A compiled encoder compiles anew for a few kinds of batches, with and without padding.
    encode(sentences if name.endswith("compiled") else sentences[:: max(1, len(sentences) // 200)])
    connection.send("warm")
    while connection.recv() == "encode":
        start = time.perf_counter()
        vectors = encode(sentences)
        connection.send((time.perf_counter() - start, vectors))


def encoding_function(
    name: str, backend: Any, folder: Path, device: str, dtype: torch.dtype
) -> Callable[[list[str]], np.ndarray]:
    """Load the model as "minisbert", "minisbert compiled" or "sentence-transformers BATCH_SIZE"."""
    if name.startswith("minisbert"):
        ours = SentenceEncoder.from_pretrained(folder, device=device, dtype=dtype)
        if name.endswith("compiled"):
            ours.encoder.compile(dynamic=True)
        return ours.encode
    from sentence_transformers import SentenceTransformer

    options = {"dtype": dtype} if backend == "torch" else {"export": True}
    theirs = SentenceTransformer(str(folder), device=device, backend=backend, model_kwargs=options)
    batch_size = int(name.split()[-1])
    return lambda texts: theirs.encode(texts, batch_size=batch_size, show_progress_bar=False)


def measure_parts(model: SentenceEncoder, sentences: list[str]) -> None:
    """The share of tokenising, and of the matrix products of all linear layers, batch by batch beside the model itself."""
    model.encode(sentences[:100])  # warm up
    start = time.perf_counter()
    tokenized = model.tokenizer(sentences)
    tokenizing = time.perf_counter() - start
    layers = [module for module in model.encoder.modules() if isinstance(module, torch.nn.Linear)]
    plan = plan_batches(tokenized.lengths, *batch_budget(model.device))
    whole = products = 0.0
    tokens = 0
    with torch.inference_mode():
        for rows in plan:
            input_ids, mask = model.tokenizer.pad(tokenized, rows)
            batch = (input_ids.to(model.device), None if mask is None else mask.to(model.device))
            inputs = {
                width: torch.randn(input_ids.numel(), width, dtype=model.dtype, device=model.device)
                for width in {layer.in_features for layer in layers}
            }
            whole += seconds_of(lambda batch=batch: model(*batch), model.device)
            for layer in layers:  # one by one, so that no more memory is taken than by the model
                products += seconds_of(lambda layer=layer, x=inputs[layer.in_features]: layer(x), model.device)
            tokens += input_ids.numel()
    print_json(
        parts="share of our time",
        tokenizing=round(tokenizing / (tokenizing + whole), 3),
        matrix_products=round(products / (tokenizing + whole), 3),
        padding=round(1 - len(tokenized.ids) / tokens, 3),
        batches=len(plan),
    )


def seconds_of(compute: Callable[[], object], device: torch.device) -> float:
    """How long a computation takes, in seconds; a GPU is waited for."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    compute()
    wait()
    return time.perf_counter() - start


def device_name(device: str) -> str:
    """What a table should call the device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return device


if __name__ == "__main__":
    main()
