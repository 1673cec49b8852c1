"""Turn texts into vectors.

python encode.py "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
python encode.py -m jhgan/ko-sroberta-multitask -i sentences.txt -o vectors.npy
python encode.py -i sts-test.tsv --text-field sentence1 -o vectors.npy --normalize
python encode.py --similarity "치타가 들판을 달린다." "치타가 먹이를 쫓는다." "날씨가 춥다."
python encode.py --query "배고픈데 뭐 먹지?" -i sentences.txt --top-k 3
torchrun --nproc-per-node 2 encode.py -m jhgan/ko-sroberta-multitask -i sentences.txt -o vectors.npy

Vectors go to the file, or to standard output as JSON lines (a terminal gets a table); everything else goes to
standard error. Row i of the output is text i of the input. Exit codes: 0 done, 2 bad usage or input, 3 bad model
folder, 4 Hub or network, 5 file system, 6 NaN or infinite values, 130 interrupted, 143 terminated.
"""

import argparse
import contextlib
import functools
import heapq
import itertools
import os
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minisbert.cli.blocks import BlockEncoder, blocks, is_full
from minisbert.cli.shared import OneLineParser, exit_code_of, open_closed_streams, write_utf8
from minisbert.errors import InputError, ModelError, check_unicode

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from minisbert import SentenceEncoder

DEFAULT_MODEL = Path(__file__).resolve().parents[2] / "weights" / "ko-mini"
SIMILARITY_ROWS_AT_ONCE = 64  # of the N x N matrix, which need not fit into memory
MOST_ROWS_IN_GRID = 20
DOCUMENT_PROMPTS = ("document", "passage")  # names that models give to the prompt of what a query is compared with


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = OneLineParser(
        prog="encode.py", description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to encode")
    add = parser.add_argument
    add("-m", "--model", metavar="SOURCE", help="a folder, or owner/name[@revision] (default: the model in weights/)")
    add("--revision", metavar="REV", help="branch, tag or commit of a model on the Hub")
    add("--local-files-only", action="store_true", help="open no connection")
    add("--hub-timeout", type=float, metavar="SECONDS", help="give up on the Hub after so long")
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
    open_closed_streams()
    args = build_parser().parse_args(argv)
    return exit_code_of(lambda: run(args), _say, None if args.output == "-" else args.output)


def run(args: argparse.Namespace) -> None:
    """Do what the arguments say; errors are raised."""
    warnings.filterwarnings("ignore", r".* not in Unicode normal form C")  # said below, once for all blocks
    check_usage(args)
    with contextlib.ExitStack() as stack:
        texts = open_texts(args, stack)
        if args.output not in (None, "-"):
            from minisbert.storage.vectors import check_output

            check_output(Path(args.output), args.overwrite)
        from minisbert.distributed import is_main_process, join_processes

        args.device = stack.enter_context(join_processes(args.device, "gloo"))  # vectors are exchanged on the CPU
        main_process = is_main_process()
        if not main_process:
            args.quiet = True
            sys.stdout = open(os.devnull, "w")
        write_utf8(sys.stdout)
        options = {
            "max_tokens_per_batch": args.batch_tokens,
            "normalize_embeddings": args.normalize,
            "truncate_dim": args.truncate_dim,
            "prompt": None if args.prompt is None else compose(args.prompt, args.nfc),
            "prompt_name": args.prompt_name,
            "show_progress_bar": False if args.quiet else None,
        }
        encoder = BlockEncoder(load_model(args), options)
        if args.query is not None:
            print_most_similar(encoder, texts, compose(args.query, args.nfc), args.top_k)
        elif args.similarity:
            print_similarities(encoder, list(texts))
        elif not main_process:  # the first process writes
            for block in blocks(texts):
                encoder(block)
        elif args.output not in (None, "-"):
            write_vectors(encoder, texts, args)
        elif args.output == "-" or not sys.stdout.isatty():
            print_json_lines(encoder, texts)
        else:
            show(encoder, list(texts))
        sys.stdout.flush()  # here a failure can still be reported
    if encoder.not_nfc and main_process:
        _say(
            f"note: {encoder.not_nfc} of {encoder.rows} texts are not in Unicode normal form C (decomposed Hangul, as "
            "from macOS), which most vocabularies do not know: pass --nfc"
        )
    if not args.quiet:
        _say(encoder.report())


def check_usage(args: argparse.Namespace) -> None:
    """Refuse combinations of arguments that contradict each other."""
    if "" in (args.input, args.output):
        raise InputError("the name given with --input or --output is empty")
    if args.texts and args.input is not None:
        raise InputError("give texts or --input, not both")
    from_standard_input = not args.texts and args.input in (None, "-")
    if from_standard_input and (sys.stdin is None or (args.input is None and sys.stdin.isatty())):
        raise InputError("nothing to encode: give texts, or --input FILE (see --help)")
    if sum((args.similarity, args.query is not None, args.output is not None)) > 1:
        raise InputError("choose one of --output, --similarity and --query")
    if "LOCAL_RANK" in os.environ and (args.resume or from_standard_input):
        raise InputError("--resume and standard input are for one process; run it without torchrun")
    if args.resume and args.output in (None, "-"):
        raise InputError("--resume needs --output FILE")
    if args.hub_timeout is not None and not args.hub_timeout > 0:
        raise InputError(f"--hub-timeout must be above 0 seconds, found {args.hub_timeout}")
    for option, value in (
        ("--top-k", args.top_k),
        ("--max-length", args.max_length),
        ("--batch-tokens", args.batch_tokens),
        ("--truncate-dim", args.truncate_dim),
    ):
        if value is not None and value < 1:
            raise InputError(f"{option} must be at least 1, found {value}")


def open_texts(args: argparse.Namespace, stack: contextlib.ExitStack) -> Iterator[str]:
    """The texts from the arguments, a file or standard input, composed if so wished."""
    from minisbert.text.rows import read_texts

    for option, text in (("--prompt", args.prompt), ("--query", args.query), *(("TEXT", text) for text in args.texts)):
        check_unicode(text or "", option)
    texts: Iterator[str]
    if args.texts:
        texts = iter(args.texts)
    elif args.input in (None, "-"):
        texts = read_texts(sys.stdin.buffer, "standard input", args.text_field)
    else:
        texts = read_texts(stack.enter_context(open(args.input, "rb")), args.input, args.text_field)
    first = list(itertools.islice(texts, 1))  # a wrong encoding or column shows before the model is loaded
    return (compose(text, args.nfc) for text in itertools.chain(first, texts))


def compose(text: str, nfc: bool) -> str:
    """The text, in Unicode normal form C if so wished."""
    return unicodedata.normalize("NFC", text) if nfc else text


def load_model(args: argparse.Namespace) -> "SentenceEncoder":
    """The model that the arguments name."""
    if args.model is None and not DEFAULT_MODEL.exists():
        raise ModelError(f"{DEFAULT_MODEL}: the default model is not there; name one with --model")
    import torch

    from minisbert import SentenceEncoder

    model = SentenceEncoder.from_pretrained(
        DEFAULT_MODEL if args.model is None else args.model,
        revision=args.revision,
        device=args.device,
        dtype=getattr(torch, args.dtype),
        max_seq_length=args.max_length,
        local_files_only=args.local_files_only,
        hub_timeout=args.hub_timeout,
    )
    if args.compile:
        model.encoder.compile(dynamic=True)
        try:
            model.encode("", show_progress_bar=False)  # compiles
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"--compile: cannot be done here: {reason:.150}; leave it out") from None
    return model


def write_vectors(encoder: BlockEncoder, texts: Iterator[str], args: argparse.Namespace) -> None:
    """Encode a stream of texts into a file, which appears when it is whole."""
    from minisbert.distributed import process_count
    from minisbert.storage.vectors import VectorFile

    # All weights are read for it, once.
    identity = functools.cache(lambda: {**encoder.identity(), "nfc": args.nfc, "compile": args.compile})
    path = Path(args.output)
    output = VectorFile(path)
    try:
        if args.resume:
            done, digest = output.resume(identity())
            if done and output.skip(itertools.islice(texts, done)) != digest:
                raise InputError(f"{path}: the input is not that of the interrupted run; start anew without --resume")
            encoder.first_row = done
        for block in blocks(texts):
            output.append(block, encoder(block))
            # A last block needs no note, and several processes do not resume.
            if is_full(block) and process_count() == 1:
                output.note(identity())
        output.finish(width=encoder.model.encode([], **encoder.options).shape[1])  # checks the options, texts or not
    except BaseException:
        kept = output.close()
        if kept:
            _say(f"note: {kept} rows are kept beside {path}; --resume goes on from there")
        raise


def print_json_lines(encoder: BlockEncoder, texts: Iterator[str]) -> None:
    """Print every text and its vector as a line of JSON."""
    from minisbert.storage.vectors import json_line

    for block in blocks(texts):
        vectors = encoder(block)
        sys.stdout.writelines(json_line(text, vector) for text, vector in zip(block, vectors, strict=True))


def print_similarities(encoder: BlockEncoder, texts: list[str]) -> None:
    """Print how similar every text is to every other: a grid on a terminal, else tab-separated numbers."""
    vectors = encoder(texts)
    if sys.stdout.isatty() and 1 <= len(texts) <= MOST_ROWS_IN_GRID:
        print_grid(encoder.model.similarity(vectors, vectors).numpy(), texts)
    else:
        for begin in range(0, len(texts), SIMILARITY_ROWS_AT_ONCE):
            for row in encoder.model.similarity(vectors[begin : begin + SIMILARITY_ROWS_AT_ONCE], vectors).tolist():
                print("\t".join(f"{value:.4f}" for value in row))


def print_most_similar(encoder: BlockEncoder, texts: Iterator[str], query: str, k: int) -> None:
    """Print the k texts most similar to the query, best first: similarity, number of the text, text."""
    from minisbert.cli.display import printable
    from minisbert.distributed import is_main_process

    query_encoder = BlockEncoder(encoder.model, encoder.options)  # the report of the other one counts texts alone
    query_vector = query_encoder([query], prompt_names=("query",))
    if query_encoder.not_nfc and is_main_process():
        _say("note: the query is not in Unicode normal form C (decomposed Hangul): pass --nfc")
    best: list[tuple[float, int, str]] = []
    number = itertools.count(1)
    for block in blocks(texts):
        scores = encoder.model.similarity(query_vector, encoder(block, prompt_names=DOCUMENT_PROMPTS))[0].tolist()
        # Of equally similar texts the earlier one comes first: its negated number is larger.
        candidates = ((score, -next(number), text) for score, text in zip(scores, block, strict=True))
        best = heapq.nlargest(k, itertools.chain(best, candidates))
    for score, negated, text in best:
        print(f"{score:.4f}\t{-negated}\t{printable(text)}")


def show(encoder: BlockEncoder, texts: list[str]) -> None:
    """Show a person what came out: each text with its vector and, for a few texts, the similarity grid."""
    from minisbert.cli.display import table_of_texts

    vectors = encoder(texts)
    print(table_of_texts(texts, vectors, shutil.get_terminal_size().columns))
    if 2 <= len(texts) <= MOST_ROWS_IN_GRID:
        print()
        print_grid(encoder.model.similarity(vectors, vectors).numpy(), texts)


def print_grid(similarities: "npt.NDArray[np.float32]", texts: list[str]) -> None:
    """Print similarities as a grid that fits the terminal, coloured unless NO_COLOR is set."""
    from minisbert.cli.display import similarity_grid

    print(similarity_grid(similarities, texts, shutil.get_terminal_size().columns, colour="NO_COLOR" not in os.environ))


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # whoever closed standard error wants no messages
        print(f"encode.py: {message}", file=sys.stderr)
