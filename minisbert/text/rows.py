"""The rows of a file: the one reader, for texts to encode and for tables to train on.

The ending of the file's name says its form:

    .jsonl   a JSON object a line
    .csv     values between commas, quoted with "; a quoted value may go over several lines
    .tsv     values between tabs, never quoted: in KorSTS a quotation mark is a character of the text
    others   a text a line (`read_texts`), or a table like .tsv (`read_table`)

The first row of a table names its columns. Files are UTF-8 and are split at LF alone: U+2028, vertical tab and the other
characters that `str.splitlines` breaks lines at are ordinary characters of a text. A byte-order mark at the start and a
CR before LF are dropped. An empty line is a text too; in a table it is a row whose first value is empty.
Every row is handed on as soon as it is read, so the memory does not grow with the file.
"""

import contextlib
import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from minisbert.errors import InputError, check_unicode

FORMS = (".jsonl", ".csv", ".tsv")  # those with names; others are plain text to `read_texts`, .tsv to `read_table`
LONGEST_LINE = 1 << 28  # bytes; beyond it, this is no text but perhaps /dev/zero, which would fill the memory
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# What to do with a bad row, given its error, before the next one is read. Without such a function the error is raised.
BadRow = Callable[[InputError], None]


def read_texts(file: BinaryIO, name: str, text_field: str = "text") -> Iterator[str]:
    """Read one text of every row.

    Args:
        file: the open file.
        name: its ending says the form.
        text_field: the field or column that holds the text, in all forms with names.

    Yields:
        The texts in their order.

    Raises:
        InputError: a line is not UTF-8, not of its form, or lacks the text; the message gives file:line.
    """
    lines = read_lines(file, name)
    if _form(name) not in FORMS:
        return lines
    return _choose(_rows(lines, name, only=text_field), name, text_field)


def _choose(rows: Iterator[tuple[str, list[str]]], name: str, column: str) -> Iterator[str]:
    where, header = next(rows, (f"{name}:1", [""]))
    if column not in header:
        raise InputError(f"{where}: no column {column!r}; choose with --text-field one of: {', '.join(header):.200}")
    index = header.index(column)
    for where, values in rows:
        if len(values) <= index:
            raise InputError(f"{where}: {len(values)} columns, but the text is in column {index + 1} ({column!r})")
        yield values[index]


def read_table(path: Path, columns: Sequence[str], on_bad_row: BadRow | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """Read named values row by row; no value that is asked for may be empty.

    Args:
        path: its ending says the form.
        columns: what is asked for; the rows hold the other columns too.
        on_bad_row: see `BadRow`.

    Yields:
        For each row where it begins, "file:line", and its values by column.

    Raises:
        InputError: a column is missing, two have one name, or numbers stand for names; or a row has another number of
            values, or an empty one.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        rows = _rows(read_lines(file, str(path)), str(path), on_bad_row=on_bad_row)
        where, header = next(rows, (f"{path}:1", []))
        known = f"the columns are: {', '.join(header):.200}"
        for column in columns:
            if column not in header:
                raise InputError(f"{path}:1: no column {column!r}; {known}")
        numbers = [name for name in header if re.fullmatch(r"[\d.\s-]+", name)]
        if numbers and not columns and _form(str(path)) != ".jsonl":
            raise InputError(f"{where}: {numbers[0]!r:.40} names no column; the first line must hold the column names")
        if len(set(header)) < len(header):
            raise InputError(f"{where}: two columns have the same name; {known}")
        for where, values in rows:
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


def read_lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Read the lines of a UTF-8 text without their line ends.

    Raises:
        InputError: a line is not UTF-8 text; the message gives file:line.
        OSError: the file cannot be read.
    """
    for number in itertools.count(1):
        try:
            line = file.readline(LONGEST_LINE)  # a binary file is split at LF and nowhere else
        except OSError as error:
            error.filename = name
            raise
        if not line:
            return
        if len(line) == LONGEST_LINE:
            raise InputError(f"{name}:{number}: longer than {LONGEST_LINE >> 20} MiB; expected lines of text")
        if number == 1:
            if line.startswith(UTF_16_MARKS):
                raise InputError(f"{name}:1: UTF-16, not UTF-8; convert it: iconv -f utf-16 -t utf-8")
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            raise InputError(f"{name}:{number}: holds a NUL byte: a binary file, or UTF-16; expected UTF-8 text")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line)"
            raise InputError(f"{where}; {_hint(line)}") from None
        yield text.removesuffix("\n").removesuffix("\r")


def _hint(line: bytes) -> str:
    """Name the encoding that Korean files most often have instead, if the line makes sense in it."""
    try:
        text = line.decode("euc_kr")  # the common part of CP949: what is binary hardly ever passes for it
    except UnicodeDecodeError:
        text = ""
    if any("가" <= character <= "힣" for character in text):
        return "it looks like CP949, convert it: iconv -f cp949 -t utf-8"
    return "expected UTF-8 text; if it is in CP949, convert it: iconv -f cp949 -t utf-8"


def _form(name: str) -> str:
    return Path(name).suffix.lower()


def _rows(
    lines: Iterator[str], name: str, only: str | None = None, on_bad_row: BadRow | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Where each row begins, and its values; the names of the columns come first."""
    form = _form(name)
    if form == ".jsonl":
        return _json_rows(lines, name, only, on_bad_row)
    if form == ".csv":
        return _csv_rows(lines, name)
    return ((f"{name}:{number}", line.split("\t")) for number, line in enumerate(lines, start=1))


def _csv_rows(lines: Iterator[str], name: str) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(LONGEST_LINE)  # the default, 131,072, is less than a long text
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    number = 1
    try:
        for values in reader:
            yield f"{name}:{number}", values or [""]  # an empty line
            number = reader.line_num + 1
    except csv.Error as error:  # where the next row begins is then not known
        raise InputError(f"{name}:{number}: not CSV: {error}") from None


def _json_rows(lines: Iterator[str], name: str, only: str | None, on_bad_row: BadRow | None) -> Iterator[tuple[str, list[str]]]:
    """One field of every object, a text; or all fields, texts and numbers, which must then be those of the first object."""
    header, kinds = (None, (str, int, float)) if only is None else ([only], (str,))
    if header:
        yield f"{name}:1", header
    for number, line in enumerate(lines, start=1):
        where = f"{name}:{number}"
        with bad_row_goes_to(on_bad_row):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(f"{where}: not a line of JSON") from None
            if only is not None and not (isinstance(record, dict) and only in record):
                raise InputError(f"{where}: no field {only!r}; name the one that holds the text with --text-field")
            if not isinstance(record, dict):
                raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
            if header is None:
                header = list(record)
                yield where, header
            if only is None and record.keys() != set(header):
                raise InputError(f"{where}: expected the fields of the first line: {', '.join(header):.200}")
            values = [record[field] for field in header]
            for field, value in zip(header, values, strict=True):
                if not isinstance(value, kinds) or isinstance(value, bool):
                    expected = "neither a text nor a number" if only is None else "not a text"
                    raise InputError(f"{where}: the field {field!r:.80} is {expected} but {type(value).__name__}")
                if "\\u" in line:  # only so, as in "\ud800", can a line of UTF-8 hold half a character
                    check_unicode(str(value), f"{where}: the field {field!r:.80}")
            yield where, [str(value) for value in values]
