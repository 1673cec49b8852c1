"""What a person sees on a terminal: texts in columns, similarities as a coloured grid."""

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from minisbert.tour import Table

RESET = "\x1b[0m"
# Backgrounds of the 256-colour palette for similarities from 0 to 1 in tenths; black text stays legible on all.
COLOURS = (255, 254, 253, 230, 229, 228, 222, 216, 210, 204, 203)
Cell = tuple[str, int | None]  # what it says, and its shade, an index of COLOURS; None = no colour
MOST_ROWS = 20  # of a table
LONGEST_NAME = 6  # columns of a token's name above a grid
SHORTEST_LABEL = 10


def columns(text: str) -> int:
    """Width on a terminal: Hangul and other wide characters take two columns, combining ones none.

    >>> columns("밥 a")
    4
    """
    shown = [character for character in text if unicodedata.category(character) != "Mn"]
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in shown)


def printable(text: str) -> str:
    r"""Make a text one line that leaves a terminal as it is: white space becomes a space, control characters ?.

    >>> printable("밥\t빵\x1b[31m")
    '밥 빵?[31m'
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def clip(text: str, width: int) -> str:
    """Make a text exactly `width` columns wide: padded, or cut with an ellipsis.

    >>> clip("안녕하세요", 7) + "|"
    '안녕하…|'
    """
    # Composed, since terminals show decomposed Hangul as one syllable. Cut first, since a text may have megabytes.
    text = printable(unicodedata.normalize("NFC", text[: 8 * width]))
    if columns(text) > width:
        while columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - columns(text))


def table_of_texts(texts: Sequence[str], vectors: npt.NDArray[np.float32], terminal_width: int) -> str:
    """One line a text: its number, the length of its vector, the first values of the vector, and the text."""
    lines = []
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        values = " ".join(f"{value:+.3f}" for value in vector[:4])
        start = f"{number:4}  |v| {np.linalg.norm(vector):7.3f}  [{values} ...]  "
        lines.append(start + clip(text, max(10, terminal_width - len(start))).rstrip())
    return "\n".join(lines)


def result_line(cells: Sequence[float | str], width: int, colour: bool) -> str:
    """One line of an answer: scores with their colour, numbers of rows, and texts, of which the first may be the longest."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    line = ""
    for cell in cells:
        if isinstance(cell, float):
            score = f" {cell:.4f} "
            line += shaded(score, shade_of(cell) if colour else None)
            width -= len(score)
        elif isinstance(cell, int):
            line += f"{cell:7}"
            width -= max(7, len(str(cell)))
    for number, text in enumerate(texts):
        left = [min(columns(printable(other[:width])) + 2, width // len(texts)) for other in texts[number + 1 :]]
        free = max(1, width - sum(left) - 2)
        text = clip(text, free) if left else clip(text, free).rstrip()
        line, width = f"{line}  {text}", width - columns(text) - 2
    return line


def similarity_grid(similarities: npt.NDArray[np.floating], texts: Sequence[str], width: int, colour: bool) -> str:
    """The (N, N) similarities, a text and its row per line; the text gets what the row leaves free of the terminal's width."""
    longest = max(columns(text[:width]) for text in texts)
    cell = max(len(f"{value: .2f}") for value in similarities.flat) + 1  # distances may have many digits
    label = max(10, min(longest, width - cell * len(texts) - 6)) + 6
    names = [f"{number:4}  {text[: 8 * label]}" for number, text in enumerate(texts)]
    headings = [str(number) for number in range(len(texts))]
    cells = [[(f"{value:.2f}", shade_of(value) if colour else None) for value in row] for row in similarities]
    return "\n".join(grid(names, label, headings, cells, cell))


def shade_of(similarity: float) -> int:
    """The shade of a similarity, from 0 or less to 1."""
    return round(10 * min(1.0, max(0.0, similarity)))


def shaded(text: str, shade: int | None) -> str:
    """A text on the background of a shade."""
    return text if shade is None else f"\x1b[30;48;5;{COLOURS[shade]}m{text}{RESET}"


def grid(names: Sequence[str], label: int, headings: Sequence[str], cells: Sequence[Sequence[Cell]], cell: int) -> list[str]:
    """The lines of a table: names in `label` columns of the terminal, then cells in `cell` columns each, set to the right."""
    lines = [" " * label + "".join(right(heading, cell) for heading in headings)]
    for name, row in zip(names, cells, strict=True):
        texts = "".join(shaded(right(text, cell), shade) for text, shade in row)
        lines.append(left_to_right(clip(name, label)) + texts)
    return [line.rstrip() for line in lines]


def right(text: str, width: int) -> str:
    """Make a text exactly `width` columns wide, at the right, with at least one space before it."""
    text = clip(text, width - 1).rstrip()
    return " " * (width - columns(text)) + left_to_right(text)


def left_to_right(text: str) -> str:
    """End Hebrew or Arabic with a mark without width, so that numbers behind it are not drawn in its direction."""
    return text + "\u200e" if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text) else text


def table_lines(table: "Table", width: int, colour: bool) -> list[str]:
    """A table as lines for a terminal of so many columns; what does not fit is left out, and "…" stands there."""
    longest = max(map(columns, table.columns))
    cell = max(_digits(table), min(longest, LONGEST_NAME)) + 1 if table.shaded else max(_digits(table), longest) + 2
    least = min(4, len(table.columns))  # columns, sums among them, and beside them the start of a name
    cell = min(cell, (width - SHORTEST_LABEL) // least)
    label = min(max(SHORTEST_LABEL, *map(columns, table.rows)), width - least * cell)
    names, headings, cells = visible(table, MOST_ROWS, (width - label) // cell - table.sums)
    if not colour:
        cells = [[(text, None) for text, _ in row] for row in cells]
    return textwrap.wrap(table.title, width) + grid(names, label, headings, cells, cell)


def _digits(table: "Table") -> int:
    """The characters of the longest number, sums included."""
    return max(len(format(number, table.form)) for number in table.with_sums().flat)


def visible(table: "Table", most_rows: int, most_columns: int) -> tuple[list[str], list[str], list[list[Cell]]]:
    """Names of rows, names of columns and cells of a table; where something is left out stands "…". Sums are of everything.

    Takes the number of rows and of columns that there is room for, at least 3 each, sums not counted.
    """
    numbers, low, high = table.with_sums(), table.numbers.min(), table.numbers.max()
    rows, headings = (*table.rows, "sum"), (*table.columns, "sum")

    def cell(row: int | None, column: int | None) -> Cell:
        if row is None or column is None:
            return "…", None
        number = numbers[row, column]
        is_sum = row == len(table.rows) or column == len(table.columns)
        coloured = table.shaded and not is_sum and high > low and math.isfinite(number)
        text = format(number, table.form)
        if float(text) == 0:
            text = text.removeprefix("-")
        return text, round((len(COLOURS) - 1) * (number - low) / (high - low)) if coloured else None

    shown_rows = [*_some(len(table.rows), most_rows), *([len(table.rows)] if table.sums else [])]
    shown_columns = [*_some(len(table.columns), most_columns), *([len(table.columns)] if table.sums else [])]
    return (
        ["…" if row is None else rows[row] for row in shown_rows],
        ["…" if column is None else headings[column] for column in shown_columns],
        [[cell(row, column) for column in shown_columns] for row in shown_rows],
    )


def _some(count: int, most: int) -> list[int | None]:
    """Which of `count` to show: all, or the first ones and the last one, and a gap (None) before it.

    >>> _some(4, 4), _some(100, 4)
    ([0, 1, 2, 3], [0, 1, None, 99])
    """
    return list(range(count)) if count <= most else [*range(most - 2), None, count - 1]
