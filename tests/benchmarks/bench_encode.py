"""Encoding speed: sentence-transformers and minisbert in turn, same weights, same sentences, same dtype or both 8-bit.

python -m tests.benchmarks.bench_encode --korsts DIR/KorSTS --tokenizers DIR/models --kinds roberta deberta --dtypes float32
python -m tests.benchmarks.bench_encode --korsts DIR/KorSTS --tokenizers DIR/models --dtypes int8 --backend onnx-int8 --queries

Prints sentences per second for every round and, at the end, the medians and two ratios: ours against the best batch size of
sentence-transformers, and against its default (32). A ratio is the median over the rounds of the ratio within a round, and
every other round goes backwards, so that a machine that slows down or speeds up meanwhile favours nobody. Every contender has
a process of its own, since the memory that one leaves behind slows down the next, or speeds it up. With int8 ours in float32
takes part too. `--queries` encodes one short text at a time as well. `--parts` measures where our time goes.
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
from minisbert.models.int8 import Int8Linear
from minisbert.text.batching import plan_batches
from tests.benchmarks.models import full_size_folder, korsts_sentences, print_json
from tests.benchmarks.peers import BACKENDS, load_peer, prepare_peer

DEFAULT_BATCH_SIZE = 32  # of sentence-transformers
QUERY = "오늘 저녁에 먹을 만한 음식을 추천해 줘"  # 12 tokens
CALLS = 500
FOR_QUERIES = ("minisbert", "minisbert float32", "sentence-transformers 32")


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
        choices=BACKENDS,
        default="torch",
        help="of sentence-transformers; the others need the package optimum, and compute in float32 or 8-bit as they say",
    )
    parser.add_argument("--compile", action="store_true", help="measure ours compiled too")
    parser.add_argument("--queries", action="store_true", help=f"also encode {CALLS} short texts, one at a time")
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
    names = ["minisbert"] + ["minisbert float32"] * (dtype == torch.int8) + ["minisbert compiled"] * args.compile
    names += [f"sentence-transformers {size}" for size in args.batch_sizes]
    peer = prepare_peer(folder, args.backend, sentences)
    contenders: dict[str, Connection] = {}
    processes = []
    for name in names:
        contenders[name], other_end = multiprocessing.Pipe()
        path = folder if name.startswith("minisbert") else peer
        settings = (name, args.backend, path, args.device, dtype, sentences, other_end)
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
    for name in names:
        if name.startswith("minisbert"):
            report(kind, dtype, name, speeds, vectors)
    if args.queries:
        measure_queries(kind, {name: contenders[name] for name in names if name in FOR_QUERIES})
    for connection, process in zip(contenders.values(), processes, strict=True):
        connection.send("end")
        process.join()
    if args.parts:
        model = SentenceEncoder.from_pretrained(folder, device=args.device, dtype=dtype)
        measure_parts(model, sentences)


def report(kind: str, dtype: torch.dtype, name: str, speeds: dict[str, list[float]], vectors: dict[str, np.ndarray]) -> None:
    """Print how one of our contenders compares with each of the others."""

    def ratio(other: str) -> float:
        return statistics.median(map(operator.truediv, speeds[name], speeds[other]))

    best = min((other for other in speeds if not other.startswith("minisbert")), key=ratio)
    default = f"sentence-transformers {DEFAULT_BATCH_SIZE}"
    exact = "minisbert float32"
    print_json(
        contender=name,
        model=kind,
        dtype=str(dtype).removeprefix("torch."),
        sentences_per_second=round(statistics.median(speeds[name]), 1),
        best_batch_size_of_theirs=int(best.split()[-1]),
        theirs_at_best=round(statistics.median(speeds[best]), 1),
        ratio_to_best=round(ratio(best), 2),
        ratio_to_default=round(ratio(default), 2) if default in speeds else None,
        ratio_to_our_float32=round(ratio(exact), 2) if exact in speeds else None,
        lowest_cosine_to_float32=lowest_cosine(vectors[name], vectors[exact]) if exact in speeds else None,
        theirs=lowest_cosine(vectors[best], vectors[exact]) if exact in speeds else None,
        largest_difference=float(np.abs(vectors[name] - vectors[best]).max()),
    )


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of the rows of a (N, D) with the same rows of b."""
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return round(float(cosines.min()), 5)


def measure_queries(kind: str, contenders: dict[str, Connection]) -> None:
    """One short text at a time, in turn a tenth of the calls each: median and 99th percentile in milliseconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(10):
        for name, connection in contenders.items():
            for call in range(CALLS // 10 + 3):
                connection.send("query")
                if call >= 3:  # before, its weights come back into the caches
                    seconds[name].append(connection.recv()[0])
                else:
                    connection.recv()
    for name, values in seconds.items():
        milliseconds = 1000 * np.array(values)
        p99 = round(float(np.percentile(milliseconds, 99)), 2)
        print_json(contender=name, model=kind, query_median_ms=round(float(np.median(milliseconds)), 2), query_p99_ms=p99)


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
    while (texts := {"encode": sentences, "query": [QUERY]}.get(connection.recv())) is not None:
        start = time.perf_counter()
        vectors = encode(texts)
        connection.send((time.perf_counter() - start, vectors))


def encoding_function(
    name: str, backend: Any, folder: Path, device: str, dtype: torch.dtype
) -> Callable[[list[str]], np.ndarray]:
    """Load the model as "minisbert", "minisbert compiled" or "sentence-transformers BATCH_SIZE"."""
    if name.startswith("minisbert"):
        ours = SentenceEncoder.from_pretrained(folder, device=device, dtype="float32" if name.endswith("float32") else dtype)
        if name.endswith("compiled"):
            ours.encoder.compile(dynamic=True)
        return ours.encode
    theirs = load_peer(folder, backend, device, dtype)
    batch_size = int(name.split()[-1])
    return lambda texts: theirs.encode(texts, batch_size=batch_size, show_progress_bar=False)


def measure_parts(model: SentenceEncoder, sentences: list[str]) -> None:
    """The share of tokenising, and of the matrix products of all linear layers, batch by batch beside the model itself."""
    model.encode(sentences[:100])  # warm up
    start = time.perf_counter()
    tokenized = model.tokenizer(sentences)
    tokenizing = time.perf_counter() - start
    layers = [module for module in model.encoder.modules() if isinstance(module, torch.nn.Linear | Int8Linear)]
    plan = plan_batches(tokenized.lengths, *batch_budget(model.device, model.dtype))
    whole = products = 0.0
    tokens = 0
    with torch.inference_mode():
        for rows in plan:
            input_ids, mask = model.tokenizer.pad(tokenized, rows)
            batch = (input_ids.to(model.device), None if mask is None else mask.to(model.device))
            inputs = {layer: factor(layer, input_ids.numel()) for layer in layers[:6]}  # of the first layer, as of all
            shapes = {layer.weight.shape: x for layer, x in inputs.items()}
            whole += seconds_of(lambda batch=batch: model(*batch), model.device)
            for layer in layers:  # one by one, so that no more memory is taken than by the model
                x = shapes[layer.weight.shape]
                products += seconds_of(lambda layer=layer, x=x: bare_product(layer, x), model.device)
            tokens += input_ids.numel()
    print_json(
        parts="share of our time",
        tokenizing=round(tokenizing / (tokenizing + whole), 3),
        matrix_products=round(products / (tokenizing + whole), 3),
        padding=round(1 - len(tokenized.ids) / tokens, 3),
        batches=len(plan),
    )


def factor(layer: torch.nn.Module, rows: int) -> torch.Tensor:
    """Something of so many rows that the layer multiplies: bytes for an 8-bit one."""
    if isinstance(layer, Int8Linear):
        return torch.randint(0, 256, (rows, layer.weight.shape[0]), dtype=torch.uint8)
    return torch.randn(rows, layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device)


def bare_product(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The product of a linear layer; of an 8-bit one without the rounding before it and the scales after it."""
    return layer.multiply(x) if isinstance(layer, Int8Linear) else layer(x)


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
