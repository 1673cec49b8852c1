"""The rows of a file: the one reader, for texts to encode and for tables to train on.

The ending of the file's name says its form, with or without .gz after it:

    .txt, no ending          a text a line (`read_texts`), or a table like .tsv (`read_table`)
    .jsonl, .ndjson, .json   a JSON object a line, or an array of objects, which is read as a whole
    .csv                     values between commas, quoted with "; a quoted value may go over several lines
    .tsv                     values between tabs, never quoted: in KorSTS a quotation mark is a character of the text

Another ending is refused. The first row of a table names its columns; an object inside an object gives fields like
"labels.label". Files are UTF-8 and are split at LF alone: U+2028, vertical tab and the other characters that `str.splitlines`
breaks lines at are ordinary characters of a text. A byte-order mark at the start and a CR before LF are dropped. Empty lines at
the end are no rows; before it, an empty line of .txt is a text, and in a table a row whose first value is empty.
Every row is handed on as soon as it is read, so the memory does not grow with the file.
"""

import contextlib
import csv
import gzip
import io
import itertools
import json
import re
import shlex
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from minisbert.errors import InputError, check_unicode, one_line

FORMS = {"": "txt", ".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
NEXT_STEP = {
    ".xlsx .xls .ods": "save it as CSV UTF-8 in the program that made it",
    ".parquet .feather .arrow .pkl": "write it as .jsonl: to_json(FILE, orient='records', lines=True) of pandas",
    ".pdf .docx .doc .hwp .hwpx .odt .rtf .html .xml": "save its text as .txt, a text a line",
    ".zip .bz2 .xz .zst .7z .tar .tgz": "unpack it first",
}
LONGEST_LINE = 1 << 28  # bytes; beyond it, this is no text but perhaps /dev/zero, which would fill the memory
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
GZIP_MARK = b"\x1f\x8b"
# What to do with a bad row, given its error, before the next one is read. Without such a function the error is raised.
BadRow = Callable[[InputError], None]
Record = dict[str, Any]  # a row: its values by column; texts, or in JSON anything


def read_texts(file: BinaryIO, name: str, text_field: str | None = None, form: str | None = None) -> Iterator[str]:
    """Read one text of every row, see `read_records`."""
    return (text for text, _ in read_records(file, name, text_field, form))


def read_records(
    file: BinaryIO, name: str, text_field: str | None = None, form: str | None = None
) -> Iterator[tuple[str, Record]]:
    """Read one text of every row, and the other values of the row by column; an InputError gives file:line.

    The ending of `name` says the form, unless `form` does. `text_field` is the field or column of the text; None = "text".
    """
    lines, found = read_lines(file, name), form or form_of(name)
    if found != "txt":
        field = text_field or "text"
        for where, record in _records(lines, name, found):
            if field not in record:
                known = one_line(", ".join(record))
                raise InputError(f"{where}: no field {field!r:.80}; choose with --text-field one of: {known}")
            yield text_of(record, field, where), {column: value for column, value in record.items() if column != field}
        return
    if text_field is not None:
        raise InputError(
            f"{name}: lines of text have no field {text_field!r:.80}; say what it is: --input-format jsonl, csv or tsv"
        )
    for number, line in enumerate(lines, start=1):
        # Nobody wants vectors of the brackets and names of JSON.
        if number == 1 and not form and re.match(r'\s*(\[|\{|\[\s*\{)\s*("|$)', line):
            advice = "pass --input-format jsonl, or txt to take lines as they are"
            raise InputError(f"{name}:1: looks like JSON, not a text; {advice}")
        yield line, {}


def read_table(path: Path, on_bad_row: BadRow | None = None, quotes_are_text: bool = False) -> Iterator[tuple[str, Record]]:
    """For each row of a table where it begins, "file:line", and its values by column: the same columns in all rows.

    With `quotes_are_text`, values of a .tsv that look like quoted ones are taken as they are.
    """
    form = form_of(str(path)).replace("txt", "tsv")
    names = None
    with path.open("rb") as file:
        for where, record in _records(read_lines(file, str(path)), str(path), form, on_bad_row, quotes_are_text):
            if names is None:
                names = record.keys()
                if form != "jsonl":
                    _check_names(list(names), f"{path}:1")
            with bad_row_goes_to(on_bad_row):
                if record.keys() != names:
                    raise InputError(f"{where}: expected the fields of the first one: {one_line(', '.join(names))}")
                yield where, record


def _check_names(names: list[str], where: str) -> None:
    """Refuse a first line that holds numbers or sentences: it is a row, and the line of names is missing."""
    for name in (name[:100] for name in names):
        if re.fullmatch(r"[\d.\s-]*\d[\d.\s-]*", name) or re.search(r"[.?!]\s*$|\S\s+\S+\s+\S", name) or len(name) > 40:
            expected = "the first line must hold the column names, such as anchor and positive"
            raise InputError(f"{where}: {name!r:.60} names no column; {expected}")


def text_of(record: Record, field: str, where: str) -> str:
    """The text of a field; `where` begins the message of InputError if it holds another value."""
    value = record[field]
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise InputError(f"{where}: the field {field!r:.80} is not a text but {kind}")
    check_unicode(value, f"{where}: the field {field!r:.80}")  # JSON can hold half a character, as in "\\ud800"
    return value


def number_between(text: str, low: float, high: float, where: str, advice: str = "") -> float:
    """The number that a value spells, `low` to `high`; `where` begins the message of InputError."""
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{where}: {text!r:.40} is not a number") from None
    if not low <= number <= high:  # false for NaN too
        raise InputError(f"{where}: {text!r:.40} is not between {low:g} and {high:g}{advice}")
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
    """Read the lines of a UTF-8 text without their line ends, gzip'd or not; empty lines at the end are left out."""
    source: io.BufferedIOBase | BinaryIO = file
    empty = 0  # lines since the last one that is not
    for number in itertools.count(1):
        try:
            if number == 1:
                source = _unpacked(file)
            line = source.readline(LONGEST_LINE)  # a binary file is split at LF and nowhere else
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{name}: damaged gzip data; make or fetch the file again ({error!s:.80})") from None
        except OSError as error:
            error.filename = name
            raise
        if not line:
            return
        if len(line) == LONGEST_LINE:
            raise InputError(f"{name}:{number}: longer than {LONGEST_LINE >> 20} MiB; expected lines of text")
        if number == 1:
            if line.startswith(UTF_16_MARKS):
                raise InputError(f"{name}:1: UTF-16, not UTF-8; {_convert('utf-16', name)}")
            line = line.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in line:
            # In UTF-16 of big-endian order the first byte of an ASCII character, a line end for example, is the NUL.
            encoding = "utf-16be" if number == 1 and line.index(0) % 2 == 0 else "utf-16le"
            problem = "holds a NUL byte: a binary file, or UTF-16"
            raise InputError(f"{name}:{number}: {problem}; if it is text, {_convert(encoding, name)}")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line)"
            raise InputError(f"{where}; {_hint(line, name)}") from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            empty += 1
            continue
        yield from itertools.repeat("", empty)
        empty = 0
        yield text


def _unpacked(file: BinaryIO) -> io.BufferedIOBase:
    """The file itself or, if it is gzip'd, what is in it."""
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var]
    return gzip.open(buffered) if buffered.peek(2).startswith(GZIP_MARK) else buffered


def _hint(line: bytes, name: str) -> str:
    """Name the encoding that Korean files most often have instead, if the line makes sense in it.

    Why it is not read as CP949 with a note: that it is CP949 is known only when every line has passed, and texts are handed on
    before. A line of UTF-8 that was cut can pass for CP949, too.
    """
    try:
        text = line.decode("euc_kr")  # the common part of CP949: what is binary hardly ever passes for it
    except UnicodeDecodeError:
        text = ""
    if any("가" <= character <= "힣" for character in text):
        return f"it looks like CP949, {_convert('cp949', name)}"
    return f"expected UTF-8 text; if it is in CP949, {_convert('cp949', name)}"


def _convert(encoding: str, name: str) -> str:
    return f"convert it: iconv -f {encoding} -t utf-8 {shlex.quote(name)} > NEW (in Excel: save as CSV UTF-8)"


def form_of(name: str) -> str:
    """The form that the ending of a file's name says: "txt", "jsonl", "csv" or "tsv"; an InputError if none."""
    path = Path(name)
    ending = Path(path.stem if path.suffix.lower() == ".gz" else name).suffix.lower()
    if ending not in FORMS:
        step = next((step for endings, step in NEXT_STEP.items() if ending in endings.split()), None)
        known = "rename it to .txt, .jsonl, .csv or .tsv, or say --input-format to encode.py"
        raise InputError(f"{name}: what is in a {ending} file is not known; {step or known}")
    return FORMS[ending]


def _records(
    lines: Iterator[str], name: str, form: str, on_bad_row: BadRow | None = None, quotes_are_text: bool = False
) -> Iterator[tuple[str, Record]]:
    """Where each row begins, and its values by column."""
    if form == "jsonl":
        yield from _json_records(lines, name, on_bad_row)
        return
    rows = _csv_rows(lines, name) if form == "csv" else ((n, line.split("\t")) for n, line in enumerate(lines, start=1))
    names: list[str] = next(rows, (1, [""]))[1]
    known = [column for column in names if column]  # Excel leaves columns without a name after the last one
    if len(set(known)) < len(known):
        raise InputError(f"{name}:1: two columns have the same name; the columns are: {one_line(', '.join(names))}")
    other, expected = (r"[;\t]", "commas") if form == "csv" else ("[;,]", "tabs")
    if len(names) == 1 and (found := re.search(other, names[0])):
        raise InputError(f"{name}:1: {found[0]!r} seems to stand between the values; a .{form} has {expected} there")
    without_name = [column for column, each in enumerate(names) if not each]
    advice = "; a .tsv knows no quotes: write values with quotation marks or line breaks as .csv"
    for number, values in rows:
        if len(values) != len(names):
            quoted = form == "tsv" and any(value.startswith('"') or value.endswith('"') for value in values)
            problem = f"{len(values)} columns, expected {len(names)}{advice if quoted else ''}"
        elif form == "tsv" and not quotes_are_text and any(map(_is_quoted, values)):
            problem = f'a value is quoted, with "" for "{advice}'
        elif len(without_name) > 1 and any(values[column] for column in without_name):
            problem = "a value in one of several columns without a name; name them in the first line"
        else:
            yield f"{name}:{number}", dict(zip(names, values, strict=True))
            continue
        with bad_row_goes_to(on_bad_row):
            raise InputError(f"{name}:{number}: {problem}")


def _is_quoted(value: str) -> bool:
    r"""Whether a program that writes tables, such as pandas, has quoted a value: `_is_quoted('"그는 ""네""라고 했다."')`."""
    return value.startswith('"') and value.endswith('"') and '""' in value[1:-1] and '"' not in value[1:-1].replace('""', "")


def _csv_rows(lines: Iterator[str], name: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_LINE)  # the default, 131,072, is less than a long text
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    number = 1
    try:
        for values in reader:
            yield number, values or [""]  # an empty line
            number = reader.line_num + 1
    except csv.Error as error:  # where the next row begins is then not known
        raise InputError(f"{name}:{number}: not CSV: {error}") from None


def _json_records(lines: Iterator[str], name: str, on_bad_row: BadRow | None) -> Iterator[tuple[str, Record]]:
    """An object a line, or the objects of an array."""
    first = next(lines, "")
    if first.lstrip().startswith("["):
        values = _parse("\n".join([first, *lines]), name)
        items: Iterator[tuple[str, Any]] = ((f"{name}: record {n}", value) for n, value in enumerate(values, start=1))
    else:
        numbered = enumerate(itertools.chain([first], lines), start=1)
        items = ((f"{name}:{n}", line) for n, line in numbered if line or n > 1)
    for where, value in items:
        with bad_row_goes_to(on_bad_row):
            record = _parse(value, where) if not first.lstrip().startswith("[") else value
            if not isinstance(record, dict):
                raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
            flat: Record = {}
            for field, inner in record.items():
                flat |= {f"{field}.{key}": part for key, part in inner.items()} if isinstance(inner, dict) else {field: inner}
            yield where, flat


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not JSON; expected an object a line, or an array of objects") from None
