"""Fine-tune a sentence-embedding model, by a published recipe or on your own pairs.

python train.py --list-recipes
python train.py --recipe ko-sroberta-multitask -o weights/my-multitask
python train.py --train pairs.tsv --loss cosine --model jhgan/ko-sroberta-multitask --epochs 5 -o weights/my-pairs
torchrun --nproc-per-node 2 train.py --recipe ko-sroberta-sts -o weights/my-sts

A recipe's data are those in --data DIR, or are downloaded. Your own file names its columns: "anchor" and "positive", or any two
texts, perhaps wrong answers ("negative_1", ...), perhaps "score" (0 to 5) or "label" (the cosine to reach). What was understood
is said in a line before the first step. Exit codes: 0 done, 2 bad usage or input,
3 bad model or training state, 4 Hub or network, 5 file system, 6 NaN or infinite values, 130 interrupted, 143 terminated.
"""

import argparse
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from minisbert.cli.shared import Say, Terminated, command_parser, default_model, exit_code_of, prepare_streams, weights_folder
from minisbert.errors import INTERRUPTED_EXIT_CODE, InputError, check_unicode
from minisbert.training.log import METRICS
from minisbert.training.plan import add_flags, check_flags, check_number
from minisbert.training.recipes import RECIPES, Recipe, describe_recipes, own_recipe

BATCH_FLAGS = {"own": "--batch-size", "nli": "--nli-batch-size", "sts": "--sts-batch-size"}  # by data of a task
SAME_SIGNAL = 1.0  # seconds; torchrun passes on to its processes what the terminal has sent them already


class Stop:
    """What SIGINT and SIGTERM do: end the program or, while it trains, stop it after a step; a second one kills."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.exit_code = 0
        self.training = False
        self.since = 0.0
        signal.signal(signal.SIGINT, self._arrived)
        signal.signal(signal.SIGTERM, self._arrived)

    def __call__(self) -> bool:
        """Whether one has arrived."""
        return self.exit_code != 0

    def _arrived(self, number: int, _frame: object) -> None:
        if self.exit_code:
            if time.monotonic() - self.since > SAME_SIGNAL:
                os._exit(self.exit_code)
            return
        self.exit_code, self.since = 128 + number, time.monotonic()
        if not self.training:
            raise KeyboardInterrupt if self.exit_code == INTERRUPTED_EXIT_CODE else Terminated
        self.say("stopping after this step; once more to stop at once")


def main(argv: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Run the command line, with flags for the fields of `Plan`; returns the exit code."""
    prepare_streams()
    parser = command_parser(prog, __doc__, "train.py")
    add = parser.add_argument
    add("--list-recipes", action="store_true", help="print the recipes and the KorSTS score each should reach")
    add("--recipe", choices=sorted(RECIPES), metavar="NAME", help="train as a published model was trained")
    add("--data", type=Path, metavar="DIR", help="folder with KorNLI and KorSTS (default: download them)")
    add("--train", type=Path, metavar="FILE", help="your own pairs or triplets: .tsv, .csv, .jsonl or .json")
    add("--loss", choices=("cosine", "mnrl"), help="cosine: reach each pair's label; mnrl: find the right text")
    add("-m", "--model", metavar="SOURCE", help="what to start from: a folder, or owner/name[@revision] (for --train: ko-mini)")
    add("-o", "--output", type=Path, metavar="DIR", help="folder for the model (default: weights/RECIPE or weights/own)")
    add(
        "--dev",
        type=Path,
        metavar="FILE",
        help="to pick the best model by: scored pairs, pairs as for --train, or texts with a class",
    )
    add("--test", type=Path, metavar="FILE", help="to measure before and after, likewise (default: --dev; a recipe has KorSTS)")
    add(BATCH_FLAGS["own"], type=int, metavar="N", help="of your own data (default: 16)")
    add(BATCH_FLAGS["nli"], type=int, metavar="N", help="of a recipe's ranking data")
    add(BATCH_FLAGS["sts"], type=int, metavar="N", help="of a recipe's scored pairs")
    add("--max-length", type=int, metavar="N", help="cut texts to N tokens")
    add("--matryoshka-dims", metavar="A,B,..", help="train the first A, B, .. columns of the vectors too")
    add_flags(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last training state in the output folder")
    again.add_argument("--overwrite", action="store_true", help="train into a folder that holds something already")
    add("--push", metavar="OWNER/NAME", help="upload the finished model to the Hub; a repository made for it is private")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--skip-bad", action="store_true", help="leave out bad rows of the data and count them")
    add("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(argv)
    say = Say(prog)
    if args.list_recipes:
        return exit_code_of(lambda: print(describe_recipes(), flush=True), say)
    output = args.output or weights_folder() / (args.recipe or "own")
    advice = "lower the batch size or --max-length, or pass --recompute"
    return exit_code_of(lambda: run(args, output, say), say, str(output), advice)


def run(args: argparse.Namespace, output: Path, say: Say) -> int:
    """Check the arguments, make the output folder, and train; returns the exit code, errors are raised."""
    stop = Stop(say)
    for name in ("model", "train", "data", "dev", "test", "output"):
        check_unicode(str(getattr(args, name)), f"--{name}")
    check_flags(vars(args))
    for flag in (*BATCH_FLAGS.values(), "--max-length"):
        if (value := getattr(args, flag[2:].replace("-", "_"))) is not None:
            check_number(flag, value, 1)
    recipe = choose_recipe(args)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: a file; name a folder")
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        if args.resume and not (output / METRICS).exists():
            raise InputError(f"{output}: no training run was here to go on with; name another folder")
        if not (args.resume or args.overwrite):
            raise InputError(f"{output}: not empty; pass --resume to go on, or --overwrite to train anew into it")
    from minisbert.cli.train_run import train  # imports torch, which what is above does without

    return train(args, recipe, output, stop, say)


def choose_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that is asked for, or one for your own data, with what the flags change."""
    if args.recipe is not None:
        recipe = RECIPES[args.recipe]
    elif args.train is None:
        raise InputError("give --recipe NAME (see --list-recipes) or --train FILE")
    elif args.loss is None:
        raise InputError("--train needs --loss: cosine for pairs with labels or scores, mnrl for pairs that belong together")
    else:
        recipe = own_recipe(args.model or str(default_model()), args.loss)
    data = {task.data for task in recipe.tasks}
    owns_data = "own" in data
    if owns_data != (args.train is not None):
        problem = "needs" if owns_data else "has its own data, it takes no"
        raise InputError(f"the recipe {recipe.name} {problem} --train FILE")
    sizes = {"own": args.batch_size, "nli": args.nli_batch_size, "sts": args.sts_batch_size}
    given = [("--loss", "own", args.loss), *((BATCH_FLAGS[name], name, size) for name, size in sizes.items())]
    for flag, needed, value in given:
        if value is not None and needed not in data:
            where = "with --train" if owns_data else f"for the recipe {recipe.name}"
            raise InputError(f"{flag} has no meaning {where}: there is no {needed} data")
    if owns_data and args.evaluation_steps and args.dev is None:
        raise InputError("--evaluation-steps needs --dev FILE")
    if owns_data and args.data is not None:
        raise InputError("--data is for recipes with data of their own; give --train FILE alone")
    tasks = tuple(  # --loss is there only if the one task has data of your own
        dataclasses.replace(task, batch_size=sizes.get(task.data) or task.batch_size, loss=args.loss or task.loss)
        for task in recipe.tasks
    )
    return dataclasses.replace(
        recipe,
        tasks=tasks,
        plan=recipe.plan.with_flags(vars(args)),
        base=recipe.base if args.model is None else args.model,
        max_seq_length=args.max_length or recipe.max_seq_length,
        matryoshka_dims=recipe.matryoshka_dims if args.matryoshka_dims is None else _dims(args.matryoshka_dims),
    )


def _dims(text: str) -> tuple[int, ...]:
    if not all(part.isascii() and part.isdigit() and int(part) for part in text.split(",")):
        raise InputError(f"--matryoshka-dims {text}: expected whole numbers with commas, such as 768,256,64")
    return tuple(int(part) for part in text.split(","))
