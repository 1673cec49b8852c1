"""Watch a sentence become a vector: every step of the real computation, with its numbers and the function that does it.

python -m minisbert.tour
python -m minisbert.tour "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
python -m minisbert.tour -m jhgan/ko-sroberta-multitask --layer 12 --head 3 "고양이가 잠을 잔다."
python -m minisbert.tour --html tour.html "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."

With a second text it shows which tokens make the two alike, and trains a copy of the model on them for one step. Exit codes: as
those of encode.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from minisbert.cli.shared import Say, command_parser, default_model, exit_code_of, prepare_streams
from minisbert.errors import InputError

MODULE = "python -m minisbert.tour"
TEXTS = ("한 남자가 음식을 먹는다.", "한 여자가 빵을 먹고 있다.")
LEAST_WIDTH = 40  # columns of a terminal


def main(argv: Sequence[str] | None = None, prog: str = MODULE) -> int:
    """Run the command line; returns the exit code."""
    prepare_streams()
    parser = command_parser(prog, __doc__, "-m minisbert.tour")
    add = parser.add_argument
    add("texts", nargs="*", default=TEXTS, metavar="TEXT", help="one or two texts (default: two examples)")
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
    from minisbert.cli.tour_run import show_tour  # imports torch, which what is above does without

    show_tour(args, say)
