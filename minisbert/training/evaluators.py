"""What a file can measure, which its columns say: how well a model scores pairs, or how well it finds texts.

two texts, score or label      do the similarities follow the scores? Labels that are all 0 or 1: are pairs told apart?
anchor, positive               does each anchor find its positives among those of all pairs?
anchor, positive, negatives    is the positive nearer than each negative?
text, class                    does the first text of each class find the others among all texts?
"""

from pathlib import Path
from typing import Any, Protocol

from minisbert.errors import InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.search.evaluation import BinaryClassificationEvaluator, InformationRetrievalEvaluator, TripletEvaluator
from minisbert.text.rows import BadRow
from minisbert.training.columns import Columns
from minisbert.training.examples import Example, OnColumns, read_with_columns


class Evaluator(Protocol):
    """What measures a model on data: an `EmbeddingSimilarityEvaluator`, or one of search/evaluation.py.

    Attributes:
        name: of the data; begins the keys of the result.
        task: what is measured, in the words of sentence-transformers' model cards.
        table: begins the name of the file with the results, as in sentence-transformers.
        columns: column of the table -> key of the result.
        shown: columns of the numbers by which models are compared.
    """

    name: str
    task: str
    table: str
    columns: dict[str, str]
    shown: tuple[str, ...]

    def __call__(self, model: Any) -> dict[str, float]:
        """Measure the model."""

    def main_score(self, result: dict[str, float]) -> float:
        """The number that picks the best model."""


def shown_scores(evaluator: Evaluator, result: dict[str, float]) -> str:
    """The numbers by which models are compared, x100: "cosine pearson 86.81, cosine spearman 86.05"."""
    return ", ".join(f"{column.replace('_', ' ')} {100 * result[evaluator.columns[column]]:.2f}" for column in evaluator.shown)


PURPOSES = {
    EmbeddingSimilarityEvaluator: "the order of the scores",
    BinaryClassificationEvaluator: "which pairs are the same",
    InformationRetrievalEvaluator: "search",
    TripletEvaluator: "which text is nearer",
}


def read_evaluator(
    path: Path,
    on_bad_row: BadRow | None = None,
    on_columns: OnColumns | None = None,
    name: str = "",
    show_progress_bar: bool | None = False,
) -> Evaluator:
    """Read a file to measure a model on, in any form and with any columns that `read_examples` takes, or a text and its class.

    `on_columns` gets the path and what was understood. `name` and `show_progress_bar` are those of the evaluator.

    Raises:
        InputError: the columns do not fit, a row is bad and there is no `BadRow`, or there is too little to measure.
        OSError: the file cannot be read.
    """
    columns, examples = read_with_columns(path, on_bad_row)
    try:
        evaluator = _evaluator(columns, examples, name, show_progress_bar)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if on_columns is not None:
        on_columns(path, f"{columns}; measured: {PURPOSES[type(evaluator)]}")
    return evaluator


def _evaluator(columns: Columns, examples: list[Example], name: str, show: bool | None) -> Evaluator:
    if columns.group is not None:
        return _search_in_classes(examples, name, show)
    labels = [example.label for example in examples if example.label is not None]
    if len(columns.texts) > 2:
        if labels:
            raise InputError(f"found {columns}; a number goes with two texts, not with {len(columns.texts)}")
        triplets = [(*example.texts[:2], negative) for example in examples for negative in example.texts[2:]]
        anchors, positives, negatives = ([triplet[side] for triplet in triplets] for side in range(3))
        return TripletEvaluator(anchors, positives, negatives, name, show)
    first, second = ([example.texts[side] for example in examples] for side in (0, 1))
    if not labels:
        return _search_in_pairs(first, second, name, show)
    if columns.label is not None and {*labels} == {0.0, 1.0}:
        return BinaryClassificationEvaluator(first, second, list(map(int, labels)), name, show)
    return EmbeddingSimilarityEvaluator(first, second, labels, name, show)


def _search_in_pairs(anchors: list[str], positives: list[str], name: str, show: bool | None) -> InformationRetrievalEvaluator:
    """Each anchor asks for all that it is paired with; equal texts are one."""
    relevant: dict[str, set[str]] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        relevant.setdefault(anchor, set()).add(positive)
    if len({*positives}) < 2:
        raise InputError("one positive in all: nothing to search among")
    queries, corpus = (dict.fromkeys(side) for side in (anchors, positives))
    return InformationRetrievalEvaluator(
        {text: text for text in queries}, {text: text for text in corpus}, relevant, name, show
    )


def _search_in_classes(examples: list[Example], name: str, show: bool | None) -> InformationRetrievalEvaluator:
    """The first text of each class asks for the others."""
    classes: dict[str, list[str]] = {}
    for text, group in (example.texts for example in examples):
        classes.setdefault(group, []).append(text)
    if not any(len(texts) > 1 for texts in classes.values()):
        raise InputError("no class has two texts: nothing to search for")
    if len(classes) < 2:
        raise InputError("one class in all: every text belongs together, there is nothing to tell apart")
    queries = {group: texts[0] for group, texts in classes.items()}
    corpus = {f"{group}\t{number}": text for group, texts in classes.items() for number, text in enumerate(texts[1:])}
    relevant = {group: [f"{group}\t{number}" for number in range(len(texts) - 1)] for group, texts in classes.items()}
    return InformationRetrievalEvaluator(queries, corpus, relevant, name, show)
