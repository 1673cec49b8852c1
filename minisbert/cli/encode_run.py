"""What encode.py does with the model: load it, encode the texts, and write or print vectors, similarities or an answer.

`SentenceEncoder.encode` sorts all the texts that it gets by length. A stream may hold more than fits into memory, so it is cut
into blocks that are encoded one after the other.
"""

import argparse
import contextlib
import functools
import hashlib
import operator
import os
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

import minisbert
from minisbert import devices
from minisbert.cli.grids import printable, similarity_grid, table_lines, table_of_texts, visible
from minisbert.cli.search import print_duplicates, print_groups, print_nearest, read_queries, saved_vectors
from minisbert.cli.shared import Say
from minisbert.distributed import gather, is_main_process, join_processes, process_count, share_of_rows
from minisbert.errors import InputError, MinisbertError, NonFiniteError
from minisbert.files import write_json
from minisbert.models.int8 import has_vnni
from minisbert.search.nearest import Nearest, as_tensor
from minisbert.sentence_encoder import DOCUMENT_PROMPTS, QUERY_PROMPTS, EncodeReport, SentenceEncoder
from minisbert.storage.vectors import VectorFile, json_line, open_vectors, record_path
from minisbert.text.rows import Record

# A block has at most so many texts, of about so many characters. A resumed run relies on both numbers.
ROWS_AT_ONCE = 16384
CHARACTERS_AT_ONCE = 1 << 26
SIMILARITY_ROWS_AT_ONCE = 64  # of the N x N matrix, which need not fit into memory
MOST_ROWS_IN_GRID = 20
Row = TypeVar("Row")


def encode_texts(args: argparse.Namespace, records: Iterator[tuple[str, Record]], say: Say) -> None:
    """Encode the texts and do with the vectors what the arguments say; errors are raised."""
    warnings.filterwarnings("ignore", r".* not in Unicode normal form C")  # said below, once for all blocks
    compose: Callable[[str], str] = functools.partial(unicodedata.normalize, "NFC") if args.nfc else str
    records = ((compose(text), others) for text, others in records)
    texts = (text for text, _ in records)
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(join_processes(args.device, "gloo"))  # vectors are exchanged on the CPU
        main_process = is_main_process()
        if not main_process:  # it computes its share, and the first process writes and prints
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        options = {
            "max_tokens_per_batch": args.batch_tokens,
            "normalize_embeddings": args.normalize,
            "truncate_dim": args.truncate_dim,
            "prompt": None if args.prompt is None else compose(args.prompt),
            "prompt_name": args.prompt_name,
            "show_progress_bar": None if main_process and not args.quiet else False,
        }
        encoder = BlockEncoder(load_model(args, device, say), options)
        if args.query or args.queries or args.duplicates is not None or args.groups is not None:
            answer(encoder, records, args, compose, say)
        elif args.similarity or args.why:
            rows = list(texts)
            if args.why and len(rows) != 2:
                raise InputError(f"--why is for two texts, found {len(rows)}")
            vectors = encoder(rows)
            if args.similarity:
                print_similarities(encoder, rows, vectors)
            if args.why:
                print_why(encoder, rows, vectors.shape[1])
        elif args.output is None and sys.stdout.isatty():
            rows = list(texts)
            vectors = encoder(rows)
            print(table_of_texts(rows, vectors, shutil.get_terminal_size().columns))
            if 2 <= len(rows) <= MOST_ROWS_IN_GRID:
                print()
                print_similarities(encoder, rows, vectors)
        elif args.output not in (None, "-") and main_process:
            write_vectors(encoder, texts, args, say)
        else:
            for block in blocks(texts):
                vectors = encoder(block)
                if main_process:
                    sys.stdout.writelines(map(json_line, block, vectors))
        sys.stdout.flush()  # here a failure can still be reported
    count = encoder.count
    if count("not_nfc"):
        say(
            f"note: {count('not_nfc')} of {count('rows')} texts are not in Unicode normal form C (decomposed Hangul, as "
            "from macOS), which most vocabularies do not know: pass --nfc"
        )
    if not args.quiet and args.vectors is None:
        say(
            f"{count('rows')} rows, {count('tokens')} tokens, {count('truncated')} rows truncated, "
            f"{100 * count('unknown') / max(1, count('tokens')):.1f} % unknown tokens, "
            f"{count('not_nfc')} rows not NFC, {encoder.seconds:.2f} seconds"
        )


def load_model(args: argparse.Namespace, device: str | None, say: Say) -> SentenceEncoder:
    """The model that the arguments name, on this device, compiled with --compile."""
    model = SentenceEncoder.from_pretrained(
        args.model,
        revision=args.revision,
        device=device,
        dtype=args.dtype,
        max_seq_length=args.max_length,
        local_files_only=args.local_files_only,
        hub_timeout=args.hub_timeout,
    )
    if args.dtype == "int8" and not has_vnni():
        say("note: this processor has no VNNI instructions: int8 needs less memory, but may take twice the time of float32")
    if args.compile:
        model.encoder.compile(dynamic=True)
        try:
            model.encode("", show_progress_bar=False)  # the first call compiles
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"--compile: cannot be done here: {reason:.150}; leave it out") from None
    return model


def blocks(rows: Iterator[Row], text_of: Callable[[Row], str] = str) -> Iterator[list[Row]]:
    """Cut a stream of rows into blocks that fit into memory; a row is a text, or `text_of` takes the text out of it."""
    block: list[Row] = []
    characters = 0
    for row in rows:
        block.append(row)
        characters += len(text_of(row))
        if len(block) == ROWS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block


class BlockEncoder:
    """A model with its options, arguments of `SentenceEncoder.encode`, which counts what it encodes."""

    def __init__(self, model: SentenceEncoder, options: dict[str, Any]) -> None:
        self.model = model
        self.options = options
        self.first_row = 0  # number of the first text, for messages: an earlier run has encoded the rows before it
        self.reports: list[EncodeReport] = []  # of every block and every process
        self.seconds = 0.0

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode a block to float32 (N, D), of which each process computes its share.

        The row that a `MinisbertError` names is counted from the start of the stream.
        """
        share = share_of_rows(len(texts))
        report: list[EncodeReport] = []
        try:
            vectors = self.model.encode(texts[share], **self.options, on_report=report.append)
        except MinisbertError as error:
            if error.row is not None:
                error.row += self.first_row + self.count("rows") + share.start  # the model counts from its first text
            raise
        parts, reports = zip(*gather((vectors, *report)), strict=True)
        self.reports += reports
        self.seconds += max(each.seconds for each in reports)  # the processes work at the same time
        return np.concatenate(parts)

    def count(self, what: str) -> int:
        """How many "rows", "tokens", ... were encoded; the names are those of `EncodeReport`."""
        return sum(getattr(report, what) for report in self.reports)


def write_vectors(encoder: BlockEncoder, texts: Iterator[str], args: argparse.Namespace, say: Say) -> None:
    """Encode a stream of texts into a file, which appears when it is complete."""
    model = encoder.model
    budget = devices.batch_budget(model.device, model.dtype)
    output = VectorFile(Path(args.output), args.precision)
    try:
        run = {  # all that the last bit of the vectors depends on
            **made_by(encoder, args),
            "device": model.device.type,
            "at_once": [ROWS_AT_ONCE, CHARACTERS_AT_ONCE, args.batch_tokens, *budget],
            "compile": args.compile,
        }
        if args.resume:
            encoder.first_row = output.resume(run, texts)
        for block in blocks(texts):
            output.append(block, encoder(block))
            # A block that is not full is the last one: nothing is left to resume. Several processes do not resume.
            full = len(block) == ROWS_AT_ONCE or sum(map(len, block)) >= CHARACTERS_AT_ONCE
            if full and process_count() == 1:
                output.note(run)
        width = model.encode([], **encoder.options).shape[1]  # checks the options, texts or not
        record_path(output.path).unlink(missing_ok=True)  # of vectors that were here before
        output.finish(width)
        versions = {"minisbert": minisbert.__version__, "torch": torch.__version__}
        of_file = {"precision": args.precision, "rows": output.rows, "texts": output.texts.hexdigest()}
        write_json(record_path(output.path), {**run, **of_file, "versions": versions})
    except BaseException:
        if kept := output.close():
            say(f"note: {kept} rows are kept beside {args.output}; --resume goes on from there")
        raise


def answer(
    encoder: BlockEncoder,
    records: Iterator[tuple[str, Record]],
    args: argparse.Namespace,
    compose: Callable[[str], str],
    say: Say,
) -> None:
    """Print the texts nearest to the queries, duplicates or groups, by vectors computed now or saved earlier."""
    queries = [*(args.query or ()), *(read_queries(args) if args.queries else ())]
    model = encoder.model
    query_encoder = BlockEncoder(model, model.with_prompt(QUERY_PROMPTS, encoder.options))  # the report counts the texts alone
    if queries:
        encoder.options = model.with_prompt(DOCUMENT_PROMPTS, encoder.options)
    saved = None if args.vectors is None else open_vectors(Path(args.vectors))
    if saved is not None:
        corpus = saved_vectors(Path(args.vectors), saved, made_by(encoder, args), records, say)
    else:
        corpus = ((block, encoder([text for text, _ in block])) for block in blocks(records, operator.itemgetter(0)))
    try:
        if args.duplicates is not None:
            print_duplicates(corpus, saved, args.duplicates, args.json, say)
        elif args.groups is not None:
            print_groups(corpus, saved, args.groups, args.json)
        else:
            vectors = query_encoder(list(map(compose, queries)))
            if query_encoder.count("not_nfc"):
                say("note: the query is not in Unicode normal form C (decomposed Hangul): pass --nfc")
            nearest = Nearest(as_tensor(vectors), args.top_k, model.similarity_fn_name)
            print_nearest(queries, nearest, corpus, args.json)
    except NonFiniteError as error:
        if saved is None:
            raise
        raise NonFiniteError(f"{args.vectors}: {error}; encode the texts again with -o") from None


def made_by(encoder: BlockEncoder, args: argparse.Namespace) -> dict[str, Any]:
    """What the vectors depend on, on any machine. It hashes the weights: a second for a model of base size."""
    model, options = encoder.model, encoder.options
    return {
        "model": Path(args.model).name,
        "dtype": args.dtype,
        "weights": model.fingerprint(),
        "folder": hashlib.sha256(repr(model.folder).encode()).hexdigest(),
        "pooling": model.pooling.mode,
        "prompt": model.prompt_text(options["prompt"], options["prompt_name"]),
        "normalize": options["normalize_embeddings"],
        "truncate_dim": options["truncate_dim"],
        "max_length": model.max_seq_length,
        "nfc": args.nfc,
    }


def print_similarities(encoder: BlockEncoder, texts: list[str], vectors: npt.NDArray[np.float32]) -> None:
    """Print how similar every text is to every other: on a terminal a grid, if they are few, else numbers and tabs."""
    if sys.stdout.isatty() and 1 <= len(texts) <= MOST_ROWS_IN_GRID:
        similarities = encoder.model.similarity(vectors, vectors).numpy()
        print(similarity_grid(similarities, texts, shutil.get_terminal_size().columns, colour="NO_COLOR" not in os.environ))
        return
    for begin in range(0, len(texts), SIMILARITY_ROWS_AT_ONCE):
        for row in encoder.model.similarity(vectors[begin : begin + SIMILARITY_ROWS_AT_ONCE], vectors).tolist():
            print("\t".join(f"{value:.4f}" for value in row))


def print_why(encoder: BlockEncoder, texts: list[str], width: int) -> None:
    """Print which tokens make the cosine of two texts, of their first `width` columns: a grid, or off a terminal tabs."""
    from minisbert.tour import Sentence, why_alike  # it imports training, which encoding does without

    prompts = (encoder.options["prompt"], encoder.options["prompt_name"])
    first, second = (Sentence(encoder.model, text, *prompts) for text in texts)
    table = why_alike(first, second, width)
    if sys.stdout.isatty():
        print("\n".join(table_lines(table, shutil.get_terminal_size().columns, colour="NO_COLOR" not in os.environ)))
        return
    names, headings, cells = visible(table, len(table.rows), len(table.columns))
    lines = [["", *headings], *([name, *(text for text, _ in row)] for name, row in zip(names, cells, strict=True))]
    for line in lines:
        print("\t".join(map(printable, line)))
