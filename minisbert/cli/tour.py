"""Watch a sentence become a vector: every step of the real computation, with its numbers and the function that does it.

python -m minisbert.tour
python -m minisbert.tour "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
python -m minisbert.tour -m jhgan/ko-sroberta-multitask --layer 12 --head 3 "고양이가 잠을 잔다."
python -m minisbert.tour --html tour.html "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."

With a second text it shows which tokens make the two alike, and trains a copy of the model on them for one step. Exit codes: as
those of encode.py.
"""

import argparse
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minisbert.cli.display import COLOURS, Cell, clip, columns, grid
from minisbert.cli.shared import Say, command_parser, default_model, exit_code_of, prepare_streams
from minisbert.errors import InputError
from minisbert.files import replacing

if TYPE_CHECKING:
    from minisbert.tour import Bars, Step, Table

MODULE = "python -m minisbert.tour"
TEXTS = ("한 남자가 음식을 먹는다.", "한 여자가 빵을 먹고 있다.")
LEAST_WIDTH = 40  # columns of a terminal
MOST_ROWS = 20  # of a table
LONGEST_NAME = 6  # columns of a token's name above a grid
SHORTEST_LABEL = 10


def main(argv: Sequence[str] | None = None, prog: str = MODULE) -> int:
    """Run the command line; returns the exit code."""
    prepare_streams()
    parser = command_parser(prog, __doc__, "-m minisbert.tour")
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="one or two texts (default: two examples)")
    add("-m", "--model", metavar="SOURCE", help="a folder, or owner/name[@revision] (default: ko-mini, which comes along)")
    add("--layer", type=int, default=1, metavar="N", help="show the inside of this layer (default: 1)")
    add("--head", type=int, default=1, metavar="N", help="show this head of it (default: 1)")
    add("--no-colour", action="store_true", help="plain text, as without a terminal")
    add("--width", type=int, metavar="N", help="columns to use (default: those of the terminal)")
    add("--html", type=Path, metavar="FILE", help="write a page, FILE.html, instead of printing")
    parser.set_defaults(model=default_model())
    args = parser.parse_args(argv)
    say = Say("tour" if prog == MODULE else prog)
    return exit_code_of(lambda: run(args, say), say, None if args.html is None else str(args.html))


def run(args: argparse.Namespace, say: Say) -> None:
    """Do what the arguments say; errors are raised."""
    if args.width is not None and args.width < LEAST_WIDTH:
        raise InputError(f"--width must be at least {LEAST_WIDTH}, found {args.width}")
    if args.html is not None and args.html.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {args.html}: the name must end with .html")
    # They import torch, which --help does without.
    import torch

    from minisbert.cli.tour_page import page
    from minisbert.sentence_encoder import SentenceEncoder
    from minisbert.tour import tour

    torch.set_num_threads(1)  # threads would wait for each other longer than they compute: one sentence is little work
    texts = args.texts or TEXTS
    model = SentenceEncoder.from_pretrained(args.model)
    steps = tour(model, texts, args.layer, args.head)
    if args.html is not None:
        try:
            with replacing(args.html) as file:
                file.write(page(steps, texts).encode("utf-8"))
        except OSError as error:
            error.filename = None  # of the temporary file, which the user has not heard of
            raise
        say(f"{args.html}: {len(steps)} steps")
        return
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and not args.no_colour
    width = args.width or max(LEAST_WIDTH, shutil.get_terminal_size().columns)
    for number, text in enumerate(texts, start=1):
        print(f"text {number}: {clip(text, width - 8).rstrip()}")
    for number, step in enumerate(steps, start=1):
        print("\n" + "\n".join(step_lines(number, step, width, colour)))
    sys.stdout.flush()  # here a failure can still be reported


def step_lines(number: int, step: "Step", width: int, colour: bool) -> list[str]:
    """A step as lines for a terminal of so many columns."""
    from minisbert.tour import Bars

    lines = [f"{number}. {step.title}   [{step.where}]", *textwrap.wrap(step.text, width)]
    for part in step.parts:
        lines += ["", *(bars_lines(part, width) if isinstance(part, Bars) else table_lines(part, width, colour))]
    return lines


def bars_lines(bars: "Bars", width: int) -> list[str]:
    """The first numbers of a vector, as many as fit."""
    numbers = " ".join(f"{number:+.3f}" for number in bars.numbers[: (width - 5) // 8])
    return [bars.title, f"[{numbers} ...]"]


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
