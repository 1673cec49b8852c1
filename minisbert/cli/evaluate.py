"""Measure a model: how well its similarities follow human scores, or how well it finds the texts that belong together.

python -m minisbert.evaluation --model jhgan/ko-sroberta-multitask --data sts-test.tsv
python -m minisbert.evaluation --model weights/my-pairs --data my-pairs.tsv --json

The columns of the file say what is measured: two texts with a score (0 to 5) or label (-1 to 1): the eight numbers of KorSTS,
Pearson's and Spearman's correlation; labels that are all 0 or 1: how well the same and the different are told apart; anchor
and positive: search for each anchor's positives among those of all; with a negative: which of the two is nearer; text and
class: search for the texts of the same class. All numbers are printed x100.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import minisbert
from minisbert.cli.shared import DTYPES, Say, command_parser, exit_code_of, prepare_streams
from minisbert.evaluation import FUNCTIONS, EmbeddingSimilarityEvaluator
from minisbert.training.evaluators import read_evaluator

MODULE = "python -m minisbert.evaluation"


def main(argv: Sequence[str] | None = None, prog: str = MODULE) -> int:
    """Run the command line; returns the exit code."""
    prepare_streams()
    parser = command_parser(prog, __doc__, "-m minisbert.evaluation")
    parser.add_argument("-m", "--model", required=True, metavar="SOURCE", help="a folder, or owner/name[@revision]")
    parser.add_argument(
        "--data", required=True, type=Path, metavar="FILE", help="scored pairs, such as KorSTS, pairs, or classes"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table, not x100")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the computation")
    parser.add_argument("--local-files-only", action="store_true", help="open no connection")
    args = parser.parse_args(argv)
    say = Say("evaluation" if prog == MODULE else prog)
    return exit_code_of(lambda: run(args, say), say)


def run(args: argparse.Namespace, say: Say) -> None:
    """Do what the arguments say; errors are raised."""
    notes: list[str] = []
    evaluator = read_evaluator(
        args.data, on_columns=lambda path, columns: notes.append(f"{path}: {columns}"), show_progress_bar=None
    )
    model = minisbert.SentenceEncoder.from_pretrained(  # imported at this moment, see minisbert/__init__.py
        args.model, device=args.device, dtype=args.dtype, local_files_only=args.local_files_only
    )
    result = evaluator(model)
    if args.json:
        print(json.dumps({name: None if math.isnan(number) else number for name, number in result.items()}))
    elif isinstance(evaluator, EmbeddingSimilarityEvaluator):
        print(f"{'':10}{'Pearson':>10}{'Spearman':>10}")
        for function in FUNCTIONS:
            keys = (evaluator.columns[f"{function}_{correlation}"] for correlation in ("pearson", "spearman"))
            print(f"{function:10}" + "".join(f"{100 * result[key]:10.2f}" for key in keys))
    else:
        for name, number in result.items():
            print(f"{name:28}{100 * number:8.2f}")
    sys.stdout.flush()  # here a failure can still be reported
    say(notes[0])
