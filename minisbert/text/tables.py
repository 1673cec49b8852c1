"""Rows of a file by the names of its columns: tab-separated, comma-separated, or JSON lines.

A message about a row says file:line, and the reader may choose to leave bad rows out.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from minisbert.errors import InputError, check_unicode
from minisbert.text.rows import csv_rows, read_lines

# What to do with a bad row, given its error, before the next one is read. Without such a function the error is raised.
BadRow = Callable[[InputError], None]


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
        InputError: a column is missing, two have one name, or numbers stand for names; or a row has another number of values,
            or an empty one.
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
            with bad_row_goes_to(on_bad_row):
                if len(values) != len(header):
                    raise InputError(f"{where}: {len(values)} columns, expected {len(header)}")
                row = dict(zip(header, values, strict=True))
                check_not_empty(row, columns, where)
                yield where, row


def check_not_empty(row: dict[str, str], names: Sequence[str], where: str) -> None:
    """Refuse a row one of whose named values is empty or white space; `where` begins the message of InputError."""
    for name in names:
        if not row[name].strip():
            raise InputError(f"{where}: the column {name!r:.80} is empty")


def number_between(text: str, low: float, high: float, where: str) -> float:
    """The number that a value spells, `low` to `high`; `where` begins the message of InputError."""
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{where}: {text!r:.40} is not a number") from None
    if not low <= number <= high:  # false for NaN too
        raise InputError(f"{where}: {text!r:.40} is not between {low:g} and {high:g}")
    return number


@contextlib.contextmanager
def bad_row_goes_to(on_bad_row: BadRow | None) -> Iterator[None]:
    """Hand an InputError that comes up inside to the function, if there is one."""
    try:
        yield
    except InputError as error:
        if on_bad_row is None:
            raise
        on_bad_row(error)


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
        with bad_row_goes_to(on_bad_row):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(f"{where}: not a line of JSON") from None
            if not isinstance(record, dict):
                raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
            if header is not None and set(record) != set(header):
                raise InputError(f"{where}: expected the fields of the first line: {', '.join(header):.200}")
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
