"""Add hard negatives to pairs: for each anchor, the nearest texts that are not its answer, to train on.

minisbert mine --pairs pairs.tsv -o triplets.jsonl
minisbert mine --pairs pairs.tsv --corpus answers.txt -m weights/pets --negatives 3 -o triplets.jsonl
python train.py --train triplets.jsonl --loss mnrl -o weights/pets

Without --corpus, negatives are chosen among the positives of the other pairs. In a checkout without installation,
`minisbert mine` is `python -m minisbert.cli.main mine`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import minisbert
from minisbert.cli.shared import Say, command_parser, default_model, exit_code_of, prepare_streams
from minisbert.errors import InputError
from minisbert.files import replacing
from minisbert.search import mine_hard_negatives
from minisbert.text.rows import read_texts
from minisbert.training.examples import read_examples


def main(argv: Sequence[str] | None = None, prog: str = "minisbert mine") -> int:
    """Run the command line; returns the exit code."""
    prepare_streams()
    parser = command_parser(prog, __doc__)
    add = parser.add_argument
    add("--pairs", required=True, type=Path, metavar="FILE", help="pairs, as train.py --train reads them")
    add("--corpus", metavar="FILE", help="texts to choose from: .txt, .jsonl, .csv or .tsv (default: the positives)")
    add("--text-field", metavar="NAME", help="field or column of the corpus that holds the text (default: text)")
    add("-m", "--model", metavar="SOURCE", help="compares the texts (default: ko-mini, which comes along)")
    add("-o", "--output", required=True, type=Path, metavar="FILE", help="JSON lines: anchor, positive, negatives")
    add("--overwrite", action="store_true", help="replace an output that exists")
    add("--negatives", type=int, default=1, metavar="N", help="how many for each pair (default: 1)")
    add("--margin", type=float, default=0.95, metavar="M", help="share of the answer's cosine that they may reach (0.95)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--local-files-only", action="store_true", help="open no connection")
    parser.set_defaults(model=default_model())
    args = parser.parse_args(argv)
    say = Say(prog)
    return exit_code_of(lambda: run(args, say), say, str(args.output))


def run(args: argparse.Namespace, say: Say) -> None:
    """Do what the arguments say; errors are raised."""
    if args.output.suffix.lower() != ".jsonl":
        raise InputError(f"{args.output}: the name must end with .jsonl")
    if args.output.exists() and any(args.output.samefile(each) for each in (args.pairs, args.corpus) if each is not None):
        raise InputError(f"{args.output}: is an input too; name another output")
    if args.output.exists() and not args.overwrite:
        raise InputError(f"{args.output}: exists already; pass --overwrite to replace it")
    if args.negatives < 1 or not 0 <= args.margin <= 1:
        raise InputError("--negatives must be at least 1, and --margin from 0 to 1")
    if args.text_field is not None and args.corpus is None:
        raise InputError("--text-field is for --corpus")
    examples = read_examples(args.pairs, on_columns=lambda path, columns: say(f"{path}: {columns}"))
    if len(examples[0].texts) > 2:
        raise InputError(f"{args.pairs}: the pairs have negatives already; leave out all columns but anchor and positive")
    if any(example.label not in (None, 1.0) for example in examples):
        problem = "not every score or label says that the two texts belong together"
        raise InputError(f"{args.pairs}: {problem}; leave out the rows with a lower one")
    anchors, positives = ([example.texts[side] for example in examples] for side in (0, 1))
    corpus = positives
    if args.corpus is not None:
        with open(args.corpus, "rb") as file:
            corpus = [text for text in read_texts(file, args.corpus, args.text_field) if text.strip()]
        if not corpus:
            raise InputError(f"{args.corpus}: no texts in it")
    model = minisbert.SentenceEncoder.from_pretrained(args.model, device=args.device, local_files_only=args.local_files_only)
    found = mine_hard_negatives(anchors, positives, corpus, model, num_negatives=args.negatives, margin=args.margin)
    names = ["negative"] if args.negatives == 1 else [f"negative_{number}" for number in range(1, args.negatives + 1)]
    rows = 0
    with replacing(args.output) as output:
        for anchor, positive, negatives in zip(anchors, positives, found, strict=True):
            if len(negatives) == args.negatives:
                row = {"anchor": anchor, "positive": positive, **dict(zip(names, negatives, strict=True))}
                output.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
                rows += 1
        if rows == 0:
            advice = "lower --negatives, raise --margin or give a larger --corpus"
            raise InputError(f"no pair has {args.negatives} texts that are near and yet far enough; {advice}")
    left_out = f"; {len(found) - rows} are left out, no text being near and yet far enough" if rows < len(found) else ""
    say(f"{rows} of {len(found)} pairs have {args.negatives} hard negatives{left_out}")
