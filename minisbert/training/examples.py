"""The data that Korean sentence-embedding models are trained and measured on: readers, triplets and batches.

KorSTS and KorNLI: Ham et al. 2020, "KorNLI and KorSTS: New Benchmark Datasets for Korean NLU" (kakaobrain/kor-nlu-datasets,
CC BY-SA 4.0). Tab-separated, UTF-8, and without quoting: a quotation mark is a character like any other, and a reader that
thinks otherwise swallows a third of KorNLI.

All randomness comes from seeds: the same seed gives the same triplets and batches, whatever else the program draws.
"""

import hashlib
import itertools
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from minisbert.distributed import process_count, share_of_rows
from minisbert.errors import InputError
from minisbert.text.rows import BadRow, Record, bad_row_goes_to, number_between, read_table, text_of
from minisbert.training.columns import Columns, choose_columns

LARGEST_SCORE = 5.0  # of KorSTS: the same meaning
OnColumns = Callable[[Path, str], object]  # see `read_examples`
NLI_LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Example:
    """Texts that belong together, and what is known about them."""

    texts: tuple[str, ...]
    label: float | None = None  # the cosine that two texts shall have


class Batch(NamedTuple):
    """B examples, column by column."""

    texts: tuple[list[str], ...]  # columns of B texts
    labels: list[float] | None  # None where the loss compares rows with each other, see `share_of_batch`


class Batches(Protocol):
    """What can be iterated again and again; each iteration may bring other batches, but the same in every run."""

    def __len__(self) -> int:
        """The number of batches of one iteration."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches."""


def read_examples(path: Path, on_bad_row: BadRow | None = None, on_columns: OnColumns | None = None) -> list[Example]:
    """Read pairs to train on, perhaps with wrong answers: any form of rows.py with names, KorSTS and KLUE files among them.

    Columns are used for what they are called, see columns.py. The label of an example is that in a column "label" (the cosine
    that the two texts shall have, -1 to 1), or a fifth of that in a column "score" (0 to 5, as in KorSTS), or None. If the
    columns do not fit, or a row is bad and there is no `BadRow`, that is an InputError with file:line.

    `on_columns` gets the path and what was understood, such as "anchor = question, positive = answer".
    """
    columns, examples = read_with_columns(path, on_bad_row)
    if columns.group is not None:
        advice = "it measures search, with --dev; to train, write pairs of one class to a file"
        raise InputError(f"{path}: found {columns}: no two texts; {advice}")
    if columns.score is not None and all((example.label or 0.0) * LARGEST_SCORE <= 1 for example in examples):
        problem = f"no {columns.score!r:.60} is above 1, but a score goes from 0 to {LARGEST_SCORE:g}"
        raise InputError(f"{path}: {problem}; call the column label if it goes from 0 to 1")
    if on_columns is not None:
        on_columns(path, str(columns))
    return examples


def read_with_columns(path: Path, on_bad_row: BadRow | None = None) -> tuple[Columns, list[Example]]:
    """Read a table, and what its columns are for; of a table of classes, an example is a text and its class."""
    columns, examples = None, []
    for where, row in read_table(path, on_bad_row):
        if columns is None:
            columns = choose_columns(row, str(path))
            if columns.relation is not None:
                advice = "train on KorNLI by a recipe with --data, or write the pairs that belong together to a file"
                raise InputError(f"{path}: the column {columns.relation!r:.60} is not a number but a word; {advice}")
        with bad_row_goes_to(on_bad_row):
            label = None
            if columns.score is not None:
                label = number_between(str(row[columns.score]), 0.0, LARGEST_SCORE, where) / LARGEST_SCORE
            elif columns.label is not None:
                label = number_between(str(row[columns.label]), -1.0, 1.0, where, "; call the column score if it goes to 5")
            names = (*columns.texts, columns.group) if columns.group is not None else columns.texts
            examples.append(Example(tuple(_filled(row, name, where) for name in names), label))
    if columns is None or not examples:
        raise InputError(f"{path}: no examples in it")
    for number, name in enumerate(columns.texts):
        if all(re.fullmatch(r"[\d\s.,:+-]+", example.texts[number]) for example in examples):
            advice = "leave it out, or call it score or label"
            raise InputError(f"{path}: the column {name!r:.60} holds numbers, no texts; {advice}")
    return columns, examples


def read_nli(path: Path, on_bad_row: BadRow | None = None) -> list[tuple[str, str, str]]:
    """Read a file of KorNLI or KLUE: premise, hypothesis and label, one of `NLI_LABELS`, of each pair."""
    pairs, columns = [], None
    for where, row in read_table(path, on_bad_row, quotes_are_text=True):
        columns = columns or choose_columns(row, str(path))
        if columns.relation is None or len(columns.texts) != 2:
            raise InputError(f"{path}: found {columns}; expected sentence1, sentence2 and gold_label")
        with bad_row_goes_to(on_bad_row):
            label = row[columns.relation]
            if label not in NLI_LABELS:
                raise InputError(f"{where}: the label {label!r:.40} is not one of {', '.join(NLI_LABELS)}")
            first, second = (_filled(row, name, where) for name in columns.texts)
            pairs.append((first, second, label))
    return pairs


def _filled(row: Record, name: str, where: str) -> str:
    """The text of a column, in JSON perhaps a number; an InputError if it is empty or white space."""
    text = str(row[name]) if type(row[name]) is int else text_of(row, name, where)
    if not text.strip():
        raise InputError(f"{where}: the column {name!r:.80} is empty")
    return text


def nli_triplets(pairs: Iterable[tuple[str, str, str]], seed: int) -> list[Example]:
    """Triplets (anchor, what follows from it, what contradicts it) for `MultipleNegativesRankingLoss`.

    Both directions of every pair are entered under their first sentence. Each sentence that has at least one entailment and
    one contradiction gives two triplets: (sentence, entailed, contradicted) and (entailed, sentence, contradicted), each
    text drawn at random among those entered. (The published models were trained with draws from an unordered set, which no
    seed repeats.)

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
    triplets = []
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


class NoDuplicatesBatches(ShuffledBatches):
    """Batches in which no text occurs in two examples, for losses that take the texts of other examples for wrong answers.

    A text that is the right answer of one row and a wrong answer of another would teach nonsense. The examples are shuffled
    once, and a pointer walks through them over all batches and iterations; at the end they are shuffled again. An example one
    of whose texts is in the batch already (except for case and surrounding white space) is passed over until the pointer comes
    round again. The walk is that of sentence-transformers' NoDuplicatesDataLoader: with random.seed(seed) there and the same
    seed here, the batches are the same.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        super().__init__(examples, batch_size, seed)
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
                    problem = f"a batch of {self.batch_size} examples without a common text cannot be filled from these"
                    smaller = f"choose a batch size of at most {len(batch)}"
                    advice = smaller if len(batch) > 1 else "they share their texts, and two different ones are needed"
                    raise InputError(f"{problem} {len(self.examples)} examples; {advice}")
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


class BatchStream:
    """The batches of an objective without end, one iteration after the other, with a digest of all that were taken."""

    def __init__(self, batches: Batches) -> None:
        self._batches = itertools.chain.from_iterable(itertools.repeat(batches))
        self._taken = hashlib.sha256()

    def take(self) -> Batch:
        """The next batch."""
        batch = next(self._batches)
        self._taken.update(repr(batch).encode())
        return batch

    def digest(self) -> str:
        """A hash of all batches taken so far: a resumed run, and every process of a run, must have the same."""
        return self._taken.hexdigest()


def share_of_batch(batch: Batch) -> Batch:
    """The rows of a batch that belong to this process: the same number for all, which in-batch negatives rely on.

    A batch with labels that cannot be divided so, perhaps the last of an epoch, is computed whole by every process: the average
    is then the same, because a loss with labels looks at each row alone. One without labels is an InputError.
    """
    rows, processes = len(batch.texts[0]), process_count()
    if rows % processes:
        if batch.labels is not None:
            return batch
        problem = f"a batch of {rows} examples cannot be divided among {processes} processes"
        raise InputError(f"{problem}; choose another size")
    share = share_of_rows(rows)
    return Batch(tuple(column[share] for column in batch.texts), None if batch.labels is None else batch.labels[share])
