"""From a recipe to what `fit` takes: the examples of every task, batches and a loss for each, and the evaluators."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as distributed

from minisbert.errors import InputError
from minisbert.progress import progress_bar
from minisbert.text.rows import BadRow
from minisbert.training import corpora, ko_mini, losses
from minisbert.training.evaluators import Evaluator, read_evaluator
from minisbert.training.examples import (
    Batches,
    Example,
    NoDuplicatesBatches,
    ShuffledBatches,
    read_examples,
)
from minisbert.training.losses import Loss, Objective
from minisbert.training.recipes import Recipe


@dataclass(frozen=True)
class TrainingSet:
    """What the model card says about the data of one objective."""

    name: str
    paths: tuple[Path, ...]
    examples: tuple[Example, ...]  # the first hundred, for statistics and samples
    size: int
    loss: Loss
    batch_size: int


ExamplesByTask = dict[str, tuple[list[Example], list[Path]]]  # with the files that they come from


def load_data(
    recipe: Recipe,
    own: Path | None,
    folder: Path | None,
    dev: Path | None,
    test: Path | None,
    skip_bad: bool,
    download_to: Path,
    show_progress_bar: bool | None,
) -> tuple[ExamplesByTask, Evaluator | None, Evaluator | None, list[str]]:
    """Read what a recipe is trained and measured on: the examples, and the evaluators for development and for the test.

    What was understood by the columns of your files is said in the last value, a line for each file.

    Args:
        recipe: names the data of its tasks.
        own: the file of a task with data of your own.
        folder: with the corpora of the other tasks; None = download them.
        dev: what to pick the best model by, see evaluators.py; None = the pairs of KorSTS, or none for data of your own.
        test: what to measure the model on in the end; None likewise.
        skip_bad: leave bad rows out and warn of them, instead of raising (except in the data of ko_mini.py, which are fixed).
        download_to: folder for what is downloaded.
        show_progress_bar: during a download; None = on a terminal.

    Raises:
        InputError: a row is bad, or a file is missing or too small.
        HubError: the download fails.
        OSError: a file cannot be read or written.
    """
    notes: list[str] = []
    yours = {own, dev, test}

    def on_columns(path: Path, columns: str) -> None:
        if path in yours:
            notes.append(f"{path}: {columns}")

    with _bad_rows(skip_bad) as on_bad_row:
        if own is not None:
            examples = {"own": (read_examples(own, on_bad_row, on_columns), [own])}
        else:
            kor_nlu = _find_or_download(recipe, folder, download_to, show_progress_bar)
            dev, test = dev or kor_nlu / corpora.STS_DEV.path, test or kor_nlu / corpora.STS_TEST.path
            examples = {}
            for data in (task.data for task in recipe.tasks):
                if recipe.model_type is not None and folder is not None:
                    examples[data] = ko_mini.load_examples(folder, data, recipe.plan.seed)
                elif data == "nli":
                    examples[data] = corpora.load_nli(kor_nlu, recipe.plan.seed, on_bad_row)
                else:
                    path = kor_nlu / corpora.STS_TRAIN.path
                    examples[data] = read_examples(path, on_bad_row), [path]
        for_dev, for_test = (
            None if path is None else read_evaluator(path, on_bad_row, on_columns, path.stem) for path in (dev, test)
        )
        return examples, for_dev, for_test, notes


@contextlib.contextmanager
def _bad_rows(skip: bool) -> Iterator[BadRow]:
    """What to do with a bad row: say how to leave it out, or leave it out and warn in the end of all that were."""
    left_out: list[InputError] = []

    def on_bad_row(error: InputError) -> None:
        if not skip:
            raise InputError(f"{error}; correct it, or pass --skip-bad to leave such rows out")
        left_out.append(error)

    try:
        yield on_bad_row
    finally:  # before an error, too: bad rows may be why too few are left
        if left_out:
            warnings.warn(f"{len(left_out)} bad rows left out, the first: {left_out[0]}", stacklevel=4)


def build_objectives(recipe: Recipe, examples: ExamplesByTask) -> tuple[list[Objective], list[TrainingSet]]:
    """Batches and a loss for every task of a recipe, and what the model card says about the examples from `load_data`.

    Raises:
        InputError: the examples of a task do not suit its loss, or do not fill a batch.
    """
    objectives, sets = [], []
    for task in recipe.tasks:
        rows, paths = examples[task.data]
        loss: Loss
        batches: Batches
        if task.loss == "cosine":
            if any(row.label is None or len(row.texts) != 2 for row in rows):
                needed = "pairs with a column score (0 to 5) or label (-1 to 1)"
                raise InputError(f"{paths[0]}: --loss cosine needs {needed}")
            loss, batches = losses.CosineSimilarityLoss(), ShuffledBatches(rows, task.batch_size, recipe.plan.seed)
        else:
            if any(row.label not in (None, 1.0) for row in rows):
                raise InputError(
                    f"{paths[0]}: --loss mnrl takes the texts of every row to belong together; leave out the rows with "
                    "a lower score or label, or use --loss cosine"
                )
            rows = [Example(row.texts) for row in rows]  # no labels: the loss compares rows, see `share_of_batch`
            if task.batch_size == 1 and any(len(row.texts) == 2 for row in rows):
                raise InputError("--batch-size 1: with mnrl a row's wrong answers are the other rows of its batch")
            loss = losses.MultipleNegativesRankingLoss()
            batches = NoDuplicatesBatches(rows, task.batch_size, recipe.plan.seed)
        if len(batches) == 0:
            problem = f"{len(rows)} examples do not fill one batch of {task.batch_size}"
            raise InputError(f"{paths[0]}: {problem}; lower the batch size")
        if recipe.matryoshka_dims:
            loss = losses.MatryoshkaLoss(loss, recipe.matryoshka_dims)
        objectives.append(Objective(batches, loss, task.data))
        sets.append(TrainingSet(task.data, tuple(paths), tuple(rows[:100]), len(rows), loss, task.batch_size))
    return objectives, sets


def _find_or_download(recipe: Recipe, folder: Path | None, download_to: Path, show: bool | None) -> Path:
    """The folder with the corpora that a recipe needs; without `folder` they are downloaded, once."""
    if folder is not None:
        return corpora.find_kor_nlu(folder)
    if recipe.model_type is not None:
        needed = "--data DIR with the folders named in minisbert/training/ko_mini.py"
        raise InputError(f"the recipe {recipe.name} needs {needed}")
    files = [corpora.STS_TRAIN, corpora.STS_DEV, corpora.STS_TEST]
    if any(task.data == "nli" for task in recipe.tasks):
        files += corpora.NLI_TRAIN
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one process on every machine; the others wait
        with progress_bar(None, show, unit="B") as bar:
            corpora.download(files, download_to, lambda path, have, size: bar.move_to(have, size, before=path))
    if distributed.is_initialized():
        distributed.barrier()
    return download_to
