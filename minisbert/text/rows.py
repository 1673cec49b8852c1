"""Texts from a file, one after the other: plain lines, JSON lines, or a column of a table.

Files are UTF-8 and are split at LF alone: U+2028, vertical tab and the other characters that `str.splitlines` breaks
lines at are ordinary characters of a text. A byte-order mark at the start and a CR before LF are dropped. An empty
line is a text too; in a table it is a row whose first value is empty.
"""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from minisbert.errors import InputError, check_unicode

LONGEST_LINE = 1 << 28  # bytes; beyond it, this is no text but perhaps /dev/zero, which would fill the memory
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_texts(file: BinaryIO, name: str, text_field: str = "text") -> Iterator[str]:
    """Read texts in the form that the ending of the file's name stands for.

    Args:
        file: the open file.
        name: its ending says what it holds: .jsonl a JSON object a line, .csv and .tsv a table under a line of column
            names, everything else a text a line.
        text_field: the field or column that holds the text.

    Yields:
        The texts in their order.

    Raises:
        InputError: a line is not UTF-8, not JSON, or lacks the field; the message gives file:line.
    """
    lines = read_lines(file, name)
    suffix = Path(name).suffix.lower()
    if suffix == ".jsonl":
        return _jsonl_texts(lines, name, text_field)
    if suffix == ".tsv":
        return _tsv_texts(lines, name, text_field)
    if suffix == ".csv":
        return _csv_texts(lines, name, text_field)
    return lines


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


def _jsonl_texts(lines: Iterable[str], name: str, field: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: not a line of JSON") from None
        if not isinstance(record, dict) or field not in record:
            raise InputError(f"{where}: no field {field!r}; name the one that holds the text with --text-field")
        text = record[field]
        if not isinstance(text, str):
            raise InputError(f"{where}: the field {field!r} is not a text but {type(text).__name__}")
        check_unicode(text, f"{where}: the field {field!r}")
        yield text


def _tsv_texts(lines: Iterator[str], name: str, field: str) -> Iterator[str]:
    """Tab-separated values know no quoting: a quotation mark is a character of the text."""
    header = next(lines, "").split("\t")
    column = _column(header, name, field)
    for number, line in enumerate(lines, start=2):
        yield _cell(line.split("\t"), column, header, f"{name}:{number}")


def _csv_texts(lines: Iterator[str], name: str, field: str) -> Iterator[str]:
    rows = csv_rows(lines, name)
    _, header = next(rows, (1, [""]))
    column = _column(header, name, field)
    for number, values in rows:
        yield _cell(values, column, header, f"{name}:{number}")


def csv_rows(lines: Iterator[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of comma-separated values, each with the number of the line at which it begins.

    Values are quoted with ", and a quoted value may go over several lines.

    Raises:
        InputError: the quoting is broken; where the next row begins is then not known.
    """
    csv.field_size_limit(LONGEST_LINE)  # the default, 131,072, is less than a long text
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    number = 1
    try:
        for values in reader:
            yield number, values or [""]  # an empty line
            number = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{name}:{number}: not CSV: {error}") from None


def _column(header: list[str], name: str, field: str) -> int:
    if field not in header:
        columns = ", ".join(header)
        raise InputError(f"{name}:1: no column {field!r}; choose with --text-field one of: {columns:.200}")
    return header.index(field)


def _cell(values: list[str], column: int, header: list[str], where: str) -> str:
    if len(values) <= column:
        raise InputError(f"{where}: {len(values)} columns, but the text is in column {column + 1} ({header[column]!r})")
    return values[column]
