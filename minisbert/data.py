"""The data that Korean sentence-embedding models are trained and measured on: readers, triplets and batches.

KorSTS and KorNLI: Ham et al. 2020, "KorNLI and KorSTS: New Benchmark Datasets for Korean NLU" (kakaobrain/kor-nlu-datasets,
CC BY-SA 4.0). Tab-separated, UTF-8, and without quoting: a quotation mark is a character like any other, and a reader that
thinks otherwise swallows a third of KorNLI.

All randomness comes from seeds: the same seed gives the same triplets and batches, whatever else the program draws.
"""

import contextlib
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from minisbert.errors import InputError
from minisbert.text_input import check_unicode, csv_rows, read_lines

LARGEST_SCORE = 5.0  # of KorSTS: the same meaning
NLI_LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Example:
    """Texts that belong together, and what is known about them."""

    texts: tuple[str, ...]
    label: float | None = None  # the cosine that two texts shall have


class Batch(NamedTuple):
    """B examples, column by column."""

    texts: tuple[list[str], ...]  # columns of B texts
    labels: list[float] | None


# A bad row is an error. A reader that is given a function calls it with the error instead, and goes on with the next row.
BadRow = Callable[[InputError], None]


def read_sts(path: Path, on_bad_row: BadRow | None = None) -> tuple[list[str], list[str], list[float]]:
    """Read a KorSTS file.

    Returns:
        First sentences, second sentences, and human scores from 0 (unrelated) to 5 (the same meaning), in file order.

    Raises:
        InputError: a line lacks a column or a text, or its score is not a number from 0 to 5; the message gives file:line.
        OSError: the file cannot be read.
    """
    sentences1: list[str] = []
    sentences2: list[str] = []
    scores: list[float] = []
    for where, row in read_table(path, ("sentence1", "sentence2", "score"), on_bad_row):
        with _bad_row_goes_to(on_bad_row):
            score = _number(row["score"], 0.0, LARGEST_SCORE, where)
            sentences1.append(row["sentence1"])
            sentences2.append(row["sentence2"])
            scores.append(score)
    return sentences1, sentences2, scores


def read_nli(path: Path, on_bad_row: BadRow | None = None) -> list[tuple[str, str, str]]:
    """Read a KorNLI file.

    Returns:
        Premise, hypothesis and label (entailment, neutral or contradiction) of each pair, in file order.

    Raises:
        InputError: a line lacks a column or a text, or has another label; the message gives file:line.
        OSError: the file cannot be read.
    """
    pairs: list[tuple[str, str, str]] = []
    for where, row in read_table(path, ("sentence1", "sentence2", "gold_label"), on_bad_row):
        with _bad_row_goes_to(on_bad_row):
            if row["gold_label"] not in NLI_LABELS:
                raise InputError(f"{where}: the label {row['gold_label']!r:.40} is not one of {', '.join(NLI_LABELS)}")
            pairs.append((row["sentence1"], row["sentence2"], row["gold_label"]))
    return pairs


def read_examples(path: Path, on_bad_row: BadRow | None = None) -> list[Example]:
    """Read pairs or triplets of your own: a table under a line of column names (.tsv, .csv), or JSON lines (.jsonl).

    Two or three columns are texts, in their order in the file; one more may be called "score" (0 to 5, as in KorSTS) or
    "label" (the cosine that the two texts shall have, -1 to 1). Of a file with the columns sentence1, sentence2 and score,
    other columns are ignored, so that KorSTS files can be used as they are.

    Raises:
        InputError: the columns are others, or a row is bad; the message gives file:line.
        OSError: the file cannot be read.
    """
    examples: list[Example] = []
    for where, row in read_table(path, (), on_bad_row):
        with _bad_row_goes_to(on_bad_row):
            if "gold_label" in row:
                raise InputError(f"{where}: a row of KorNLI; name the folder with --data and train by a recipe")
            label = None
            if "score" in row:
                label = _number(row["score"], 0.0, LARGEST_SCORE, where) / LARGEST_SCORE
            elif "label" in row:
                label = _number(row["label"], -1.0, 1.0, where)
            if row.keys() >= {"sentence1", "sentence2", "score"}:
                names = ["sentence1", "sentence2"]
            else:
                names = [name for name in row if name not in ("score", "label")]
            if not 2 <= len(names) <= 3:
                raise InputError(
                    f"{where}: {len(names)} text columns; expected two (a pair) or three (with a wrong answer)"
                )
            _check_not_empty(row, names, where)
            examples.append(Example(tuple(row[name] for name in names), label))
    if not examples:
        raise InputError(f"{path}: no examples in it")
    return examples


def sts_examples(path: Path, on_bad_row: BadRow | None = None) -> list[Example]:
    """KorSTS pairs for `CosineSimilarityLoss`: the label is score / 5."""
    columns = zip(*read_sts(path, on_bad_row), strict=True)
    return [Example((first, second), score / LARGEST_SCORE) for first, second, score in columns]


def nli_triplets(pairs: Iterable[tuple[str, str, str]], seed: int) -> list[Example]:
    """Triplets (anchor, what follows from it, what contradicts it) for `MultipleNegativesRankingLoss`.

    Both directions of every pair are entered under their first sentence. Each sentence that has at least one entailment and
    one contradiction gives two triplets: (sentence, entailed, contradicted) and (entailed, sentence, contradicted), each
    text drawn at random among those entered.

    Args:
        pairs: premise, hypothesis, label.
        seed: of the draws. The published models were trained with draws from an unordered set, which no seed repeats.

    >>> nli_triplets([("개가 뛴다", "동물이 움직인다", "entailment"), ("개가 뛴다", "개가 잔다", "contradiction")], seed=0)
    [Example(texts=('개가 뛴다', '동물이 움직인다', '개가 잔다'), label=None), \
Example(texts=('동물이 움직인다', '개가 뛴다', '개가 잔다'), label=None)]
    """
    related: dict[str, dict[str, dict[str, None]]] = {}  # sentence -> label -> sentences, in the order of the data
    for premise, hypothesis, label in pairs:
        for first, second in ((premise, hypothesis), (hypothesis, premise)):
            groups = related.setdefault(first, {name: {} for name in NLI_LABELS})
            groups[label][second] = None
    generator = random.Random(seed)
    triplets: list[Example] = []
    for sentence, groups in related.items():
        entailed, contradicted = list(groups["entailment"]), list(groups["contradiction"])
        if entailed and contradicted:
            triplets.append(Example((sentence, generator.choice(entailed), generator.choice(contradicted))))
            triplets.append(Example((generator.choice(entailed), sentence, generator.choice(contradicted))))
    return triplets


class ShuffledBatches:
    """All examples in a new random order each time it is iterated; the last batch may be smaller."""

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        self.examples = list(examples)
        self.batch_size = batch_size
        self._generator = random.Random(seed)

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self._generator.shuffle(self.examples)
        for begin in range(0, len(self.examples), self.batch_size):
            yield make_batch(self.examples[begin : begin + self.batch_size])


class NoDuplicatesBatches:
    """Batches in which no text occurs in two examples, for losses that take the texts of other examples for wrong answers.

    The examples are shuffled once, and a pointer walks through them over all batches and iterations; at the end they are
    shuffled again. An example one of whose texts is in the batch already (but for case and surrounding white space) is
    passed over until the pointer comes round again. The walk is that of sentence-transformers' NoDuplicatesDataLoader: with
    random.seed(seed) there and the same seed here, the batches are the same.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        self.examples = list(examples)
        self.batch_size = batch_size
        self._generator = random.Random(seed)
        self._generator.shuffle(self.examples)
        self._pointer = 0

    def __len__(self) -> int:
        return len(self.examples) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            yield make_batch(self._fill())

    def _fill(self) -> list[Example]:
        batch: list[Example] = []
        texts: set[str] = set()
        passed_over = 0
        while len(batch) < self.batch_size:
            example = self.examples[self._pointer]
            keys = {text.strip().lower() for text in example.texts}
            if texts.isdisjoint(keys):
                batch.append(example)
                texts |= keys
                passed_over = 0
            else:
                passed_over += 1
                if passed_over > 2 * len(self.examples):  # a whole round, wherever it began, has brought nothing
                    raise InputError(
                        f"a batch of {self.batch_size} examples without a common text cannot be filled from these "
                        f"{len(self.examples)} examples; choose a batch size of at most {len(batch)}"
                    )
            self._pointer += 1
            if self._pointer == len(self.examples):
                self._pointer = 0
                self._generator.shuffle(self.examples)
        return batch


def make_batch(examples: Sequence[Example]) -> Batch:
    """Turn rows into columns."""
    columns = tuple(list(column) for column in zip(*(example.texts for example in examples), strict=True))
    labels = [example.label for example in examples if example.label is not None]
    return Batch(columns, labels if len(labels) == len(examples) else None)


def read_table(
    path: Path, columns: Sequence[str], on_bad_row: BadRow | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read named values row by row; no value that is asked for may be empty.

    Args:
        path: .csv (quoting with "), .jsonl (an object a line), anything else tab-separated without quoting.
        columns: what is asked for.
        on_bad_row: see `BadRow`.

    Yields:
        For each row where it stands, "file:line", and its values by column.

    Raises:
        InputError: a column is missing, or a row has another number of values, or an empty one.
        OSError: the file cannot be read.
    """
    split = {".csv": _split_csv, ".jsonl": _split_jsonl}.get(path.suffix.lower(), _split_tsv)
    with path.open("rb") as file:
        rows = split(read_lines(file, str(path)), path, on_bad_row)
        _, header = next(rows, (1, []))
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(f"{path}:1: no column {missing[0]!r}; the columns are: {', '.join(header):.200}")
        numbers = [name for name in header if re.fullmatch(r"[\d.\s-]+", name)]
        if numbers and not columns and split is not _split_jsonl:
            raise InputError(f"{path}:1: {numbers[0]!r:.40} names no column; the first line must hold the column names")
        if len(set(header)) < len(header):
            raise InputError(f"{path}:1: two columns have the same name; the columns are: {', '.join(header):.200}")
        for number, values in rows:
            where = f"{path}:{number}"
            with _bad_row_goes_to(on_bad_row):
                if len(values) != len(header):
                    raise InputError(f"{where}: {len(values)} columns, expected {len(header)}")
                row = dict(zip(header, values, strict=True))
                _check_not_empty(row, columns, where)
                yield where, row


def _split_tsv(lines: Iterator[str], path: Path, on_bad_row: BadRow | None) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        yield number, line.split("\t")


def _split_csv(lines: Iterator[str], path: Path, on_bad_row: BadRow | None) -> Iterator[tuple[int, list[str]]]:
    return csv_rows(lines, str(path))


def _split_jsonl(lines: Iterator[str], path: Path, on_bad_row: BadRow | None) -> Iterator[tuple[int, list[str]]]:
    """The fields of the first record are the columns; the others must have the same."""
    header: list[str] | None = None
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        with _bad_row_goes_to(on_bad_row):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(f"{where}: not a line of JSON") from None
            if not isinstance(record, dict) or (header is not None and set(record) != set(header)):
                raise InputError(f"{where}: expected an object with the fields of the first line")
            if header is None:
                header = list(record)
                yield number, header
            yield number, [_field(record[name], f"{where}: the field {name!r:.80}") for name in header]


def _field(value: object, where: str) -> str:
    """A text as it is, a number as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where} is neither a text nor a number but {type(value).__name__}")
    check_unicode(str(value), where)
    return str(value)


def _check_not_empty(row: dict[str, str], names: Sequence[str], where: str) -> None:
    for name in names:
        if not row[name].strip():
            raise InputError(f"{where}: the column {name!r:.80} is empty")


def _number(text: str, low: float, high: float, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{where}: {text!r:.40} is not a number") from None
    if not low <= number <= high:  # false for NaN too
        raise InputError(f"{where}: {text!r:.40} is not between {low:g} and {high:g}")
    return number


@contextlib.contextmanager
def _bad_row_goes_to(on_bad_row: BadRow | None) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if on_bad_row is None:
            raise
        on_bad_row(error)
