"""Turn texts into vectors.

python encode.py "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
python encode.py -m jhgan/ko-sroberta-multitask -i sentences.txt -o vectors.npy
python encode.py -i sts-test.tsv --text-field sentence1 -o vectors.npy --normalize
python encode.py --similarity "치타가 들판을 달린다." "치타가 먹이를 쫓는다." "날씨가 춥다."
python encode.py --why "치타가 들판을 달린다." "치타가 먹이를 쫓는다."
python encode.py --query "배고픈데 뭐 먹지?" -i sentences.txt --vectors vectors.npy --top-k 3
python encode.py -i sentences.txt --duplicates 0.9
torchrun --nproc-per-node 2 encode.py -m jhgan/ko-sroberta-multitask -i sentences.txt -o vectors.npy

Vectors go to the file, or to standard output as JSON lines (a terminal gets a table); everything else goes to
standard error. Row i of the output is text i of the input. Exit codes: 0 done, 2 bad usage or input, 3 bad model
folder, 4 Hub or network, 5 file system, 6 NaN or infinite values, 130 interrupted, 143 terminated.
"""

# This file is what can be done without torch, which takes a second to import: --help, and a look at the arguments and the first
# text. The work is in encode_run.py.

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minisbert.cli.shared import DTYPES, Say, command_parser, default_model, exit_code_of, prepare_streams
from minisbert.errors import InputError, check_unicode
from minisbert.storage.vectors import check_output
from minisbert.text.rows import Record, read_records

NEAREST = 5


def main(argv: Sequence[str] | None = None, prog: str = "encode.py") -> int:
    """Run the command line; returns the exit code."""
    prepare_streams()
    parser = command_parser(prog, __doc__, "encode.py")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to encode")
    add = parser.add_argument
    add("-m", "--model", metavar="SOURCE", help="a folder, or owner/name[@revision] (default: ko-mini, which comes along)")
    add("--revision", metavar="REV", help="branch, tag or commit of a model on the Hub")
    add("--local-files-only", action="store_true", help="open no connection")
    add("--hub-timeout", type=float, metavar="SECONDS", help="give up on the Hub after so long")
    add(
        "-i",
        "--input",
        metavar="FILE",
        help=".txt (a text a line), .jsonl, .json, .csv or .tsv, or one in .gz; - is standard input",
    )
    add("--input-format", choices=("txt", "jsonl", "csv", "tsv"), help="for standard input and other endings")
    add("--text-field", metavar="NAME", help="field or column that holds the text (default: text)")
    add("-o", "--output", metavar="FILE", help=".npy, .npz, .safetensors or .jsonl; - is JSON lines on standard output")
    add("--overwrite", action="store_true", help="replace an output that exists")
    add("--resume", action="store_true", help="go on where an interrupted run of the same command stopped")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--dtype", choices=DTYPES, default="float32", help="of the computation")
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
    add("--why", action="store_true", help="print which tokens make the cosine of two texts; with --similarity, that first")
    add("--query", action="append", metavar="TEXT", help="print the texts nearest to TEXT: score, row from 0, text, columns")
    add("--queries", metavar="FILE", help="queries, one a line; with several, the query comes first in each line of output")
    add("--top-k", type=int, metavar="K", help=f"how many texts are printed for a query (default: {NEAREST})")
    cosine: dict[str, Any] = {"nargs": "?", "type": float, "metavar": "T"}
    add("--duplicates", const=0.9, help="print pairs with a cosine of at least T (0.9): score, two rows, two texts", **cosine)
    add("--groups", const=0.75, help="print groups with a cosine of at least T (0.75) to a centre: group, row, text", **cosine)
    add("--vectors", metavar="FILE", help="vectors of the input, saved earlier with -o, for all that is printed about texts")
    add("--json", action="store_true", help="print JSON lines instead of values between tabs")
    add("--precision", choices=("float32", "float16", "int8"), default="float32", help="of the vectors that -o saves")
    add("--quiet", action="store_true", help="no report, no progress bar")
    parser.set_defaults(model=default_model())
    args = parser.parse_args(argv)
    say = Say(prog)
    return exit_code_of(lambda: run(args, say), say, None if args.output == "-" else args.output)


def run(args: argparse.Namespace, say: Say) -> None:
    """Do what the arguments say; errors are raised."""
    check_usage(args)
    args.top_k = args.top_k or NEAREST  # None until now: to tell a flag that is given from one that is not
    with contextlib.ExitStack() as stack:
        if args.texts:
            records: Iterator[tuple[str, Record]] = ((text, {}) for text in args.texts)
        elif args.input in (None, "-"):
            records = read_records(sys.stdin.buffer, "standard input", args.text_field, args.input_format)
        else:
            file = stack.enter_context(open(args.input, "rb"))
            records = read_records(file, args.input, args.text_field, args.input_format)
        # The first text is read now: a wrong encoding or column shows before the model is loaded.
        records = itertools.chain(list(itertools.islice(records, 1)), records)
        for text in filter(os.path.isfile, args.texts):
            say(f"note: {text} is taken as a text; -i reads the file of this name")
        if args.output not in (None, "-"):
            check_output(Path(args.output), args.overwrite)
        from minisbert.cli.encode_run import encode_texts

        encode_texts(args, records, say)


def check_usage(args: argparse.Namespace) -> None:
    """Refuse arguments that contradict each other, and numbers that are too small."""
    if "" in (args.input, args.output):
        raise InputError("the name given with --input or --output is empty")
    if args.texts and args.input is not None:
        raise InputError("give texts or --input, not both")
    if args.texts and (args.text_field or args.input_format):
        raise InputError("--text-field and --input-format are for files and standard input, not for texts as arguments")
    from_standard_input = not args.texts and args.input in (None, "-")
    if from_standard_input and (sys.stdin is None or (args.input is None and sys.stdin.isatty())):
        raise InputError("nothing to encode: give texts, or --input FILE (see --help)")
    answers = (args.query is not None or args.queries is not None, args.duplicates is not None, args.groups is not None)
    if sum((args.similarity or args.why, args.output is not None, *answers)) > 1:
        raise InputError("choose one of --output, --similarity (or --why), --query, --duplicates and --groups")
    if (args.vectors is not None or args.json) and not any(answers):
        raise InputError("--vectors and --json are for --query, --duplicates and --groups")
    if args.precision != "float32" and Path(args.output or "-").suffix.lower() not in (".npy", ".npz", ".safetensors"):
        raise InputError("--precision is for --output FILE in .npy, .npz or .safetensors")
    for option in ("duplicates", "groups"):
        if (threshold := getattr(args, option)) is not None and not -1 <= threshold <= 1:
            raise InputError(f"--{option} takes a cosine, from -1 to 1, found {threshold}")
    if "LOCAL_RANK" in os.environ and (args.resume or from_standard_input):
        raise InputError("--resume and standard input are for one process; run it without torchrun")
    if (args.resume or args.overwrite) and args.output in (None, "-"):
        raise InputError(f"{'--resume' if args.resume else '--overwrite'} needs --output FILE")
    files = (args.input or "", args.output or "")
    if all(map(os.path.exists, files)) and os.path.samefile(*files):
        raise InputError(f"{args.output}: is the input too; name another output")
    if args.compile and args.dtype == "int8":
        raise InputError("--compile does not go together with --dtype int8; leave one out")
    if args.hub_timeout is not None and not args.hub_timeout > 0:
        raise InputError(f"--hub-timeout must be above 0 seconds, found {args.hub_timeout}")
    for option in ("top_k", "max_length", "batch_tokens", "truncate_dim"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise InputError(f"--{option.replace('_', '-')} must be at least 1, found {value}")
    if args.top_k is not None and not answers[0]:
        raise InputError("--top-k is for --query and --queries")
    queries = [("--query", query) for query in args.query or ()]
    for option, text in (("--prompt", args.prompt), *queries, *(("TEXT", text) for text in args.texts)):
        check_unicode(text or "", option)
        if option == "--query" and not text.strip():
            raise InputError("--query is empty; say what to look for")
