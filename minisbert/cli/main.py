"""minisbert: sentence embeddings from hand-written BERT, RoBERTa and DeBERTa-v2 encoders.

minisbert encode "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
minisbert train --train pairs.tsv --loss cosine --model jhgan/ko-sroberta-multitask -o my-pairs
minisbert evaluate --model jhgan/ko-sroberta-multitask --data sts-test.tsv
minisbert mine --pairs pairs.tsv -o triplets.jsonl
minisbert tour "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
minisbert encode --help
"""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from minisbert import __version__
from minisbert.cli.shared import command_parser, leave

COMMANDS = ("encode", "train", "evaluate", "mine", "tour")  # modules of this folder


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    parser = command_parser("minisbert", __doc__)
    parser.add_argument(
        "command", choices=COMMANDS, help="encode texts, train a model, evaluate one, mine hard negatives, or look inside"
    )
    parser.add_argument("--version", action="version", version=f"minisbert {__version__}")
    command = parser.parse_args(argv[:1]).command
    return int(importlib.import_module(f"minisbert.cli.{command}").main(argv[1:], prog=f"minisbert {command}"))


def script() -> NoReturn:
    """What the installed command calls."""
    leave(main(sys.argv[1:]))


if __name__ == "__main__":
    script()
