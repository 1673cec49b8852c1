"""What encode.py answers about texts and their vectors: the texts nearest to a query, duplicates, and groups.

Rows are counted from 0, as in the file of vectors. On a terminal a line is cut to its width; elsewhere values stand between
tabs, or in JSON lines with --json.
"""

import argparse
import itertools
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minisbert.cli.grids import printable, result_line
from minisbert.cli.shared import Say
from minisbert.errors import InputError
from minisbert.files import read_json_object
from minisbert.search.duplicates import paraphrase_mining
from minisbert.search.groups import community_detection
from minisbert.search.nearest import Nearest, Vectors, as_tensor
from minisbert.storage.vectors import ROWS_AT_ONCE, TextDigest, record_path
from minisbert.text.rows import Record, read_texts

Block = tuple[Sequence[tuple[str, Record]], npt.NDArray[np.floating]]  # rows, a text and what else stands there, and vectors
PAIRS_OF_A_TEXT, MOST_PAIRS = 100, 500_000


def read_queries(args: argparse.Namespace) -> list[str]:
    """The queries of the file that --queries names."""
    with open(args.queries, "rb") as file:
        queries = list(read_texts(file, args.queries))
    if not queries:
        raise InputError(f"{args.queries}: no queries in it; expected a query a line")
    for number, query in enumerate(queries, start=1):
        if not query.strip():
            raise InputError(f"{args.queries}: query {number} is empty; say what to look for")
    return queries


def saved_vectors(
    path: Path, vectors: Any, made_by: dict[str, Any], records: Iterator[tuple[str, Record]], say: Say
) -> Iterator[Block]:
    """The rows of the input with their vectors, which were saved in a file earlier, block by block.

    Raises:
        InputError: the vectors do not belong to what is used now, as `made_by` says it, or to these texts.
    """
    record: dict[str, Any] = {}
    if record_path(path).exists():
        record = read_json_object(record_path(path))
        for name, now in made_by.items():
            if name != "model" and record.get(name) != now:
                model = (
                    "another model" if name in ("weights", "folder") else f"{name} {record.get(name)!r:.80}, not {now!r:.80}"
                )
                raise InputError(f"{path}: made with {model}; use that again, or encode the texts again with -o")
    else:
        say(f"note: there is no {record_path(path).name}: whether model, options and texts fit to the vectors is not known")
    digest = TextDigest()
    row = 0
    while block := list(itertools.islice(records, ROWS_AT_ONCE)):
        digest.update(text for text, _ in block)
        yield block, vectors[row : row + len(block)]
        row += len(block)
        if row > len(vectors):
            break
    if row != len(vectors):
        more = "more" if row > len(vectors) else row
        raise InputError(f"{path}: {len(vectors)} vectors, but the input has {more} texts; encode it again with -o")
    if record and record.get("texts") != digest.hexdigest():
        raise InputError(f"{path}: made of other texts than those of the input; encode it again with -o")


def print_nearest(queries: Sequence[str], nearest: Nearest, corpus: Iterable[Block], as_json: bool) -> None:
    """Print the texts nearest to each query, best first; of the corpus only they are kept in memory."""
    kept: dict[int, tuple[str, Record]] = {}
    for records, vectors in corpus:
        first = nearest.seen
        nearest.add(as_tensor(vectors))
        found = nearest.rows[nearest.scores > -math.inf].unique().tolist()
        kept = {row: kept[row] if row < first else records[row - first] for row in found}
    for query, hits in zip(queries, nearest.hits(), strict=True):
        for hit in hits:
            text, others = kept[hit["corpus_id"]]
            values = {"score": hit["score"], "row": hit["corpus_id"], "text": text}
            _print({"query": query, **values} if len(queries) > 1 else values, as_json, others)


def print_duplicates(corpus: Iterable[Block], saved: Vectors | None, threshold: float, as_json: bool, say: Say) -> None:
    """Print the pairs of texts that mean the same, best first."""
    texts, vectors = _collect(corpus, saved)
    pairs = paraphrase_mining(vectors, threshold, top_k=PAIRS_OF_A_TEXT, max_pairs=MOST_PAIRS)
    for score, i, j in pairs:
        _print({"score": score, "row": i, "other_row": j, "text": texts[i], "other_text": texts[j]}, as_json)
    most = max(np.bincount([row for pair in pairs for row in pair[1:]]), default=0)
    if len(pairs) == MOST_PAIRS or most >= PAIRS_OF_A_TEXT:
        limits = f"the {PAIRS_OF_A_TEXT} nearest of each text, {MOST_PAIRS} pairs in all"
        say(f"note: many texts are alike, so perhaps not all pairs are printed ({limits}); --groups prints each text once")


def print_groups(corpus: Iterable[Block], saved: Vectors | None, threshold: float, as_json: bool) -> None:
    """Print the groups of texts that are alike, largest first, each beginning with its centre."""
    texts, vectors = _collect(corpus, saved)
    for number, group in enumerate(community_detection(vectors, threshold)):
        for row in group:
            _print({"group": number, "row": row, "text": texts[row]}, as_json)


def _collect(corpus: Iterable[Block], saved: Vectors | None) -> tuple[list[str], Vectors]:
    """All texts and all vectors, which stay in their file if they were `saved`."""
    texts: list[str] = []
    computed = []
    for records, vectors in corpus:
        texts += [text for text, _ in records]
        if saved is None:
            computed.append(vectors)
    return texts, saved if saved is not None else np.concatenate(computed) if computed else np.empty((0, 1), dtype=np.float32)


def _print(values: dict[str, Any], as_json: bool, others: Record | None = None) -> None:
    """Print one line of values, and those of the other columns of its row; of the texts, as much as a terminal shows."""
    if as_json:
        print(json.dumps({**values, "columns": others} if others else values, ensure_ascii=False))
        return
    columns = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in (others or {}).values()]
    if sys.stdout.isatty():
        cells = [*values.values(), *([" | ".join(columns)] if columns else [])]
        print(result_line(cells, shutil.get_terminal_size().columns, colour="NO_COLOR" not in os.environ))
        return
    numbers = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values.values()]
    print("\t".join(map(printable, [*numbers, *columns])))
