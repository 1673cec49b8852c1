"""Readers for the data that Korean sentence-embedding models are trained and measured on.

KorSTS and KorNLI: Ham et al. 2020, "KorNLI and KorSTS: New Benchmark Datasets for Korean NLU"
(kakaobrain/kor-nlu-datasets, CC BY-SA 4.0). Tab-separated, UTF-8, and without quoting: a quotation mark is a
character like any other, and a reader that thinks otherwise swallows a third of KorNLI.
"""

from collections.abc import Iterator
from pathlib import Path

from minisbert.errors import InputError

LARGEST_SCORE = 5.0


def read_sts(path: Path) -> tuple[list[str], list[str], list[float]]:
    """Read a KorSTS file.

    Returns:
        First sentences, second sentences, and human scores from 0 (unrelated) to 5 (the same meaning), in file order.

    Raises:
        InputError: a line lacks a column, or its score is not a number from 0 to 5; the message gives file:line.
        OSError: the file cannot be read.
    """
    sentences1: list[str] = []
    sentences2: list[str] = []
    scores: list[float] = []
    for where, row in read_tsv(path, ("sentence1", "sentence2", "score")):
        try:
            score = float(row[2])
        except ValueError:
            raise InputError(f"{where}: the score {row[2]!r:.40} is not a number") from None
        if not 0.0 <= score <= LARGEST_SCORE:  # false for NaN too
            raise InputError(f"{where}: the score {score} is not between 0 and {LARGEST_SCORE:g}")
        sentences1.append(row[0])
        sentences2.append(row[1])
        scores.append(score)
    return sentences1, sentences2, scores


def read_tsv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Read some columns of a tab-separated file with a header line, quotation marks taken literally.

    Yields:
        For each line below the header where it stands, "file:line", and its values in the order of `columns`.
    """
    with path.open("rb") as file:
        header = _fields(file.readline().removeprefix(b"\xef\xbb\xbf"), f"{path}:1")
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(f"{path}:1: no column {missing[0]!r}; the columns are: {', '.join(header)}")
        wanted = [header.index(column) for column in columns]
        for number, line in enumerate(file, start=2):  # a binary file is split at LF and nowhere else
            where = f"{path}:{number}"
            values = _fields(line, where)
            if len(values) != len(header):
                raise InputError(f"{where}: {len(values)} columns, expected {len(header)}")
            yield where, tuple(values[index] for index in wanted)


def _fields(line: bytes, where: str) -> list[str]:
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from None
