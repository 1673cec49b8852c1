"""What the tour does after its checks: load the model, and print every step or write the page."""

import argparse
import os
import shutil
import sys
import textwrap

import torch

from minisbert.cli.grids import clip, table_lines
from minisbert.cli.shared import Say
from minisbert.cli.tour import LEAST_WIDTH
from minisbert.cli.tour_page import page
from minisbert.files import replacing
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.tour import Bars, Step, tour


def show_tour(args: argparse.Namespace, say: Say) -> None:
    """Do what the arguments say; errors are raised."""
    torch.set_num_threads(1)  # threads would wait for each other longer than they compute: one sentence is little work
    texts = args.texts
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


def step_lines(number: int, step: Step, width: int, colour: bool) -> list[str]:
    """A step as lines for a terminal of so many columns."""
    lines = [f"{number}. {step.title}   [{step.where}]", *textwrap.wrap(step.text, width)]
    for part in step.parts:
        lines += ["", *(bars_lines(part, width) if isinstance(part, Bars) else table_lines(part, width, colour))]
    return lines


def bars_lines(bars: Bars, width: int) -> list[str]:
    """The first numbers of a vector, as many as fit."""
    numbers = " ".join(f"{number:+.3f}" for number in bars.numbers[: (width - 5) // 8])
    return [bars.title, f"[{numbers} ...]"]
