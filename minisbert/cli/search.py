"""What encode.py answers about texts and their vectors: the texts nearest to a query, duplicates, and groups.

Rows are counted from 0, as in the file of vectors. On a terminal a line is cut to its width; elsewhere values stand between
tabs, or in JSON lines with --json.
"""

import argparse
import functools
import itertools
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minisbert.cli.display import clip, printable
from minisbert.cli.shared import Say
from minisbert.errors import InputError
from minisbert.files import read_json_object
from minisbert.search.groups import community_detection
from minisbert.search.nearest import ROWS_AT_ONCE, Nearest
from minisbert.search.pairs import paraphrase_mining
from minisbert.storage.vectors import TextDigest, open_vectors, record_path
from minisbert.text.rows import read_texts

Block = tuple[Sequence[str], npt.NDArray[np.floating]]  # neighbouring texts and their vectors


def read_queries(args: argparse.Namespace) -> list[str]:
    """The queries of the file that --queries names."""
    with open(args.queries, "rb") as file:
        queries = list(read_texts(file, args.queries))
    if not queries:
        raise InputError(f"{args.queries}: no queries in it; expected a query a line")
    return queries


def saved_vectors(path: Path, made_by: dict[str, Any], texts: Iterator[str], say: Say) -> Iterator[Block]:
    """The texts with vectors that were saved earlier, block by block.

    Raises:
        InputError: the vectors do not belong to what is used now, as `made_by` says it, or to these texts.
    """
    vectors = open_vectors(path)
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
    while block := list(itertools.islice(texts, ROWS_AT_ONCE)):
        digest.update(block)
        yield block, np.array(vectors[row : row + len(block)], dtype=np.float32)
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
    kept: dict[int, str] = {}
    for texts, vectors in corpus:
        first = nearest.seen
        nearest.add(torch.from_numpy(vectors))
        found = nearest.rows[nearest.scores > -math.inf].unique().tolist()
        kept = {row: kept[row] if row < first else texts[row - first] for row in found}
    for query, hits in zip(queries, nearest.hits(), strict=True):
        for hit in hits:
            values = {"score": hit["score"], "row": hit["corpus_id"], "text": kept[hit["corpus_id"]]}
            _print({"query": query, **values} if len(queries) > 1 else values, as_json)


def print_duplicates(corpus: Iterable[Block], threshold: float, as_json: bool) -> None:
    """Print the pairs of texts that mean the same, best first."""
    texts, vectors = _collect(corpus)
    for score, i, j in paraphrase_mining(vectors, threshold):
        _print({"score": score, "row": i, "other_row": j, "text": texts[i], "other_text": texts[j]}, as_json)


def print_groups(corpus: Iterable[Block], threshold: float, as_json: bool) -> None:
    """Print the groups of texts that are alike, largest first, each beginning with its centre."""
    texts, vectors = _collect(corpus)
    for number, group in enumerate(community_detection(vectors, threshold)):
        for row in group:
            _print({"group": number, "row": row, "text": texts[row]}, as_json)


def _collect(corpus: Iterable[Block]) -> tuple[list[str], npt.NDArray[np.floating]]:
    found = list(corpus)
    texts = [text for block, _ in found for text in block]
    return texts, np.concatenate([vectors for _, vectors in found]) if found else np.empty((0, 1), dtype=np.float32)


def _print(values: dict[str, Any], as_json: bool) -> None:
    """Print one line of values: of the texts, as much as a terminal shows."""
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
        return
    show: Callable[[str], str] = printable
    if sys.stdout.isatty():
        texts = sum(isinstance(value, str) for value in values.values())
        width = max(10, (shutil.get_terminal_size().columns - 8 * (len(values) - texts)) // texts - 1)
        show = functools.partial(clip, width=width)
    cells = []
    for value in values.values():
        cells.append(show(value) if isinstance(value, str) else f"{value:.4f}" if isinstance(value, float) else str(value))
    print("\t".join(cells).rstrip(" "))
