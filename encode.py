#!/usr/bin/env python3
"""Turn texts into vectors.

python encode.py "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
python encode.py -m jhgan/ko-sroberta-multitask -i sentences.txt -o vectors.npy
python encode.py -i sts-test.tsv --text-field sentence1 -o vectors.npy --normalize
python encode.py --similarity "치타가 들판을 달린다." "치타가 먹이를 쫓는다." "날씨가 춥다."
python encode.py --query "배고픈데 뭐 먹지?" -i sentences.txt --top-k 3

Vectors go to the file, or to standard output as JSON lines; everything else goes to standard error. Row i of the
output is text i of the input. Exit codes: 0 done, 2 bad usage or input, 3 bad model folder, 4 Hub or network, 5 file
system, 6 NaN or infinite values, 130 interrupted, 143 terminated.
"""

import argparse
import contextlib
import functools
import heapq
import itertools
import os
import shutil
import signal
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minisbert.errors import FILE_SYSTEM_EXIT_CODE, InputError, MinisbertError, ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from minisbert import SentenceEncoder
    from minisbert.sentence_encoder import EncodeReport

DEFAULT_MODEL = Path(__file__).resolve().parent / "weights" / "ko-mini"
ROWS_AT_ONCE = 16384  # texts that are read, sorted by length and encoded together; part of what --resume relies on
MOST_ROWS_IN_GRID = 20
DOCUMENT_PROMPTS = ("document", "passage")  # names that models give to the prompt of what a query is compared with
INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 + the number of the signal


class Terminated(BaseException):
    """SIGTERM arrived."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="encode.py", description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to encode")
    add = parser.add_argument
    add("-m", "--model", metavar="SOURCE", help="a folder, or owner/name[@revision] (default: the model in weights/)")
    add("--revision", metavar="REV", help="branch, tag or commit of a model on the Hub")
    add("--local-files-only", action="store_true", help="open no connection")
    add("-i", "--input", metavar="FILE", help=".txt (a text a line), .jsonl, .csv or .tsv; - is standard input")
    add("--text-field", default="text", metavar="NAME", help="field or column that holds the text (default: text)")
    add("-o", "--output", metavar="FILE", help=".npy, .npz, .safetensors or .jsonl; - is JSON lines on standard output")
    add("--overwrite", action="store_true", help="replace an output that exists")
    add("--resume", action="store_true", help="go on where an interrupted run of the same command stopped")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the computation")
    add("--max-length", type=int, metavar="N", help="cut texts to N tokens (default: what the model says)")
    add("--batch-tokens", type=int, metavar="N", help="tokens computed at a time (default: suits the device)")
    add("--compile", action="store_true", help="compile the encoder first: takes a minute, then runs faster")
    add("--normalize", action="store_true", help="scale every vector to length 1")
    add("--truncate-dim", type=int, metavar="N", help="keep the first N values of every vector")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="put TEXT before every text")
    prompt.add_argument("--prompt-name", metavar="NAME", help="put the model's prompt of this name before every text")
    add("--nfc", action="store_true", help="compose decomposed Hangul first (texts and file names from macOS)")
    add("--similarity", action="store_true", help="print the N x N similarity matrix instead of vectors")
    add("--query", metavar="TEXT", help="print the texts most similar to TEXT instead of vectors")
    add("--top-k", type=int, default=5, metavar="K", help="how many texts --query prints (default: 5)")
    add("--quiet", action="store_true", help="no report, no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    warnings.showwarning = lambda message, *_: _say(f"note: {message}")
    warnings.simplefilter("always", UserWarning)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return run(args)
    except MinisbertError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of standard output, perhaps `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _say(f"{error.filename or 'file system'}: {error.strerror or error}")
        return FILE_SYSTEM_EXIT_CODE
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except Terminated:
        _say("terminated")
        return TERMINATED


def run(args: argparse.Namespace) -> int:
    """Do what the arguments say; errors are raised."""
    check_usage(args)
    with contextlib.ExitStack() as stack:
        texts = open_texts(args, stack)
        if args.output not in (None, "-"):
            from minisbert.vector_output import check_output

            check_output(Path(args.output), args.overwrite)
        encoder = Encoder(load_model(args), args)
        if args.query is not None:
            print_most_similar(encoder, texts, args.query, args.top_k)
        elif args.similarity:
            print_similarities(encoder, list(texts))
        elif args.output not in (None, "-"):
            write_vectors(encoder, texts, Path(args.output), args.resume)
        elif args.output == "-" or not sys.stdout.isatty():
            print_json_lines(encoder, texts)
        else:
            show(encoder, list(texts))
    if not args.quiet:
        _say(encoder.report())
    return 0


def check_usage(args: argparse.Namespace) -> None:
    """Refuse combinations of arguments that contradict each other."""
    if args.texts and args.input:
        raise InputError("give texts or --input, not both")
    if not args.texts and not args.input and sys.stdin.isatty():
        raise InputError("nothing to encode: give texts, or --input FILE (see --help)")
    if sum((args.similarity, args.query is not None, args.output is not None)) > 1:
        raise InputError("choose one of --output, --similarity and --query")
    if args.resume and args.output in (None, "-"):
        raise InputError("--resume needs --output FILE")
    if args.top_k < 1:
        raise InputError(f"--top-k must be at least 1, found {args.top_k}")


def open_texts(args: argparse.Namespace, stack: contextlib.ExitStack) -> Iterator[str]:
    """The texts from the arguments, a file or standard input, composed if so wished."""
    from minisbert.text_input import read_texts

    texts: Iterable[str]
    if args.texts:
        texts = args.texts
    elif args.input in (None, "-"):
        texts = read_texts(sys.stdin.buffer, "standard input", args.text_field)
    else:
        texts = read_texts(stack.enter_context(open(args.input, "rb")), args.input, args.text_field)
    return (unicodedata.normalize("NFC", text) for text in texts) if args.nfc else iter(texts)


def load_model(args: argparse.Namespace) -> "SentenceEncoder":
    """The model that the arguments name."""
    if args.model is None and not DEFAULT_MODEL.exists():
        raise ModelError(f"{DEFAULT_MODEL}: the default model is not there; name one with --model")
    import torch

    from minisbert import SentenceEncoder

    try:
        device = None if args.device is None else torch.device(args.device)
    except RuntimeError:
        raise InputError(f"--device {args.device}: no such device; try cpu or cuda") from None
    if device is not None and device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {args.device}: there is no CUDA device here")
    model = SentenceEncoder.from_pretrained(
        args.model or DEFAULT_MODEL,
        revision=args.revision,
        device=device,
        dtype=getattr(torch, args.dtype),
        max_seq_length=args.max_length,
        local_files_only=args.local_files_only,
    )
    if args.compile:
        model.encoder.compile(dynamic=True)
    return model


@dataclass
class Encoder:
    """A model with the options of the command line, which counts what it encodes."""

    model: "SentenceEncoder"
    args: argparse.Namespace
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    unknown: int = 0
    not_nfc: int = 0
    seconds: float = 0.0

    def __call__(self, texts: Sequence[str], prompt_names: Sequence[str] = ()) -> "npt.NDArray[np.float32]":
        """Encode texts to float32 (N, D), with the first of `prompt_names` that the model has if none is asked for."""
        args = self.args
        prompt_name = args.prompt_name
        if args.prompt is None and prompt_name is None:
            prompt_name = next((name for name in prompt_names if name in self.model.folder.prompts), None)
        vectors: npt.NDArray[np.float32] = self.model.encode(
            texts,
            max_tokens_per_batch=args.batch_tokens,
            normalize_embeddings=args.normalize,
            truncate_dim=args.truncate_dim,
            prompt=args.prompt,
            prompt_name=prompt_name,
            show_progress_bar=False if args.quiet else None,
            on_report=self.count,
        )
        return vectors

    def count(self, report: "EncodeReport") -> None:
        """Add what happened in one call to the totals."""
        self.rows += report.rows
        self.tokens += report.tokens
        self.truncated += report.truncated
        self.unknown += report.unknown
        self.not_nfc += report.not_nfc
        self.seconds += report.seconds

    def report(self) -> str:
        """The totals in one line."""
        unknown = 100 * self.unknown / max(1, self.tokens)
        return (
            f"{self.rows} rows, {self.tokens} tokens, {self.truncated} rows truncated, {unknown:.1f} % unknown tokens, "
            f"{self.not_nfc} rows not NFC, {self.seconds:.2f} seconds"
        )

    @functools.cached_property
    def run(self) -> dict[str, Any]:
        """What decides about the vectors: a resumed run must agree in all of it."""
        options = ("dtype", "normalize", "truncate_dim", "prompt", "prompt_name", "nfc", "batch_tokens", "compile")
        return {
            "weights": self.model.fingerprint(),
            "max_length": self.model.max_seq_length,
            "device": self.model.device.type,
            "rows_at_once": ROWS_AT_ONCE,
            **{option: getattr(self.args, option) for option in options},
        }

    @property
    def width(self) -> int:
        """D of the vectors it returns."""
        return int(self.args.truncate_dim or self.model.embedding_dimension)


def blocks(texts: Iterator[str]) -> Iterator[list[str]]:
    """Cut a stream of texts into blocks that fit into memory."""
    while block := list(itertools.islice(texts, ROWS_AT_ONCE)):
        yield block


def write_vectors(encoder: Encoder, texts: Iterator[str], path: Path, resume: bool) -> None:
    """Encode a stream of texts into a file, which appears when it is whole."""
    from minisbert.vector_output import VectorFile

    output = VectorFile(path)
    try:
        if resume:
            done, digest = output.resume(encoder.run)
            if done and output.skip(list(itertools.islice(texts, done))) != digest:
                raise InputError(f"{path}: the input is not that of the interrupted run; start anew without --resume")
        for block in blocks(texts):
            output.append(block, encoder(block))
            if len(block) == ROWS_AT_ONCE:  # more may follow, which may be interrupted
                output.note(encoder.run)
        output.finish(encoder.width)
    except BaseException:
        if output.close():
            _say(f"{output.noted_rows} rows are kept beside {path}; --resume goes on from there")
        raise


def print_json_lines(encoder: Encoder, texts: Iterator[str]) -> None:
    """Print every text and its vector as a line of JSON."""
    from minisbert.vector_output import json_line

    for block in blocks(texts):
        vectors = encoder(block)
        sys.stdout.writelines(json_line(text, vector) for text, vector in zip(block, vectors, strict=True))
    sys.stdout.flush()


def print_similarities(encoder: Encoder, texts: list[str]) -> None:
    """Print how similar every text is to every other: a grid on a terminal, else tab-separated numbers."""
    similarities = encoder.model.similarity(vectors := encoder(texts), vectors).numpy()
    if sys.stdout.isatty() and len(texts) <= MOST_ROWS_IN_GRID:
        print_grid(similarities, texts)
    else:
        for row in similarities:
            print("\t".join(f"{value:.4f}" for value in row))


def print_most_similar(encoder: Encoder, texts: Iterator[str], query: str, k: int) -> None:
    """Print the k texts most similar to the query, best first: similarity, number of the text, text."""
    query_vector = encoder([query], prompt_names=("query",))
    best: list[tuple[float, int, str]] = []
    number = itertools.count(1)
    for block in blocks(texts):
        scores = encoder.model.similarity(query_vector, encoder(block, prompt_names=DOCUMENT_PROMPTS))[0].tolist()
        # Of equally similar texts the earlier one comes first: its negated number is larger.
        candidates = ((score, -next(number), text) for score, text in zip(scores, block, strict=True))
        best = heapq.nlargest(k, itertools.chain(best, candidates))
    for score, negated, text in best:
        print(f"{score:.4f}\t{-negated}\t{text}")


def show(encoder: Encoder, texts: list[str]) -> None:
    """Show a person what came out: each text with its vector and, for a few texts, the similarity grid."""
    from minisbert.display import table_of_texts

    vectors = encoder(texts)
    print(table_of_texts(texts, vectors, shutil.get_terminal_size().columns))
    if 2 <= len(texts) <= MOST_ROWS_IN_GRID:
        print()
        print_grid(encoder.model.similarity(vectors, vectors).numpy(), texts)


def print_grid(similarities: "npt.NDArray[np.float32]", texts: list[str]) -> None:
    """Print similarities as a grid that fits the terminal, coloured unless NO_COLOR is set."""
    from minisbert.display import similarity_grid

    print(similarity_grid(similarities, texts, shutil.get_terminal_size().columns, colour="NO_COLOR" not in os.environ))


def _say(message: str) -> None:
    print(f"encode.py: {message}", file=sys.stderr)


def _terminate(*_: object) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
