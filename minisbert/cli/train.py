"""Fine-tune a sentence-embedding model, by a published recipe or on your own pairs.

python train.py --list-recipes
python train.py --recipe ko-sroberta-multitask -o weights/my-multitask
python train.py --train pairs.tsv --loss cosine --model jhgan/ko-sroberta-multitask --epochs 5 -o weights/my-pairs
torchrun --nproc-per-node 2 train.py --recipe ko-sroberta-sts -o weights/my-sts

A recipe's data are those in --data DIR, or are downloaded. Your own file has a line of column names: two texts, perhaps a third
one that is a wrong answer, perhaps "score" (0 to 5) or "label" (the cosine to reach). Exit codes: 0 done, 2 bad usage or input,
3 bad model folder or checkpoint, 4 Hub or network, 5 file system, 6 NaN or infinite values, 130 interrupted, 143 terminated.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minisbert.cli.shared import OneLineParser, exit_code_of, open_closed_streams
from minisbert.errors import FILE_SYSTEM_EXIT_CODE, TERMINATED_EXIT_CODE, InputError, MinisbertError, check_unicode
from minisbert.training.recipes import RECIPES, Recipe, describe_recipes, own_recipe

if TYPE_CHECKING:
    from minisbert.evaluation import EmbeddingSimilarityEvaluator
    from minisbert.training.log import StepReport
    from minisbert.training.model_card import TrainingSet

DATA_CACHE = Path(__file__).resolve().parents[2] / "weights" / "data"
SAME_SIGNAL = 1.0  # seconds; torchrun passes on to its processes what the terminal has sent them already

# The least and the largest value of every number on the command line.
LIMITS = {
    "epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "nli_batch_size": (1, math.inf),
    "sts_batch_size": (1, math.inf),
    "lr": (1e-12, 1),
    "warmup_ratio": (0, 1),
    "warmup_steps": (0, math.inf),
    "weight_decay": (0, 1),
    "max_grad_norm": (1e-6, 1e9),  # more would change nothing
    "evaluation_steps": (0, math.inf),
    "max_steps": (1, math.inf),
    "seed": (0, 2**64 - 1),
    "checkpoint_steps": (0, math.inf),
    "max_length": (1, math.inf),
}


class Stop:
    """What SIGINT and SIGTERM do: end the program or, while it trains, stop it after a checkpoint; a second one kills."""

    def __init__(self) -> None:
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
            raise KeyboardInterrupt
        _say("stopping after this step; once more to stop at once")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = OneLineParser(
        prog="train.py", description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--list-recipes", action="store_true", help="print the recipes and the KorSTS score each should reach")
    add("--recipe", choices=sorted(RECIPES), metavar="NAME", help="train as a published model was trained")
    add("--data", type=Path, metavar="DIR", help="folder with KorNLI and KorSTS (default: download them)")
    add("--train", type=Path, metavar="FILE", help="your own pairs or triplets: .tsv, .csv or .jsonl")
    add(
        "--loss",
        choices=("cosine", "mnrl"),
        help="cosine: reach each pair's label; mnrl: tell the right text from others",
    )
    add("-m", "--model", metavar="SOURCE", help="what to start from: a folder, or owner/name[@revision]")
    add("-o", "--output", type=Path, metavar="DIR", help="folder for the model")
    add("--dev", type=Path, metavar="FILE", help="pairs (sentence1, sentence2, score) to pick the best model by")
    add("--test", type=Path, metavar="FILE", help="pairs for the final score (a recipe has KorSTS for both)")
    add("--epochs", type=int, metavar="N", help="times to go through the data")
    add("--batch-size", type=int, metavar="N", help="of your own data (default: 16)")
    add("--nli-batch-size", type=int, metavar="N", help="of a recipe's ranking data")
    add("--sts-batch-size", type=int, metavar="N", help="of a recipe's scored pairs")
    add("--lr", type=float, metavar="X", help="largest learning rate")
    warmup = parser.add_mutually_exclusive_group()
    warmup.add_argument("--warmup-ratio", type=float, metavar="X", help="share of all steps on which the rate goes up")
    warmup.add_argument("--warmup-steps", type=int, metavar="N", help="steps on which the rate goes up")
    add("--weight-decay", type=float, metavar="X", help="share of the learning rate by which weights shrink in a step")
    add("--max-grad-norm", type=float, metavar="X", help="longer gradients are shortened to this length")
    add("--evaluation-steps", type=int, default=1000, metavar="N", help="evaluate every N steps of an epoch (1000)")
    add("--max-steps", type=int, metavar="N", help="stop after N steps; the schedule ends there")
    add("--seed", type=int, metavar="N", help="of triplets, batches and dropout")
    add("--matryoshka-dims", metavar="A,B,..", help="train the first A, B, .. columns of the vectors too")
    add(
        "--checkpoint-steps", type=int, default=500, metavar="N", help="write a checkpoint every N steps (default: 500)"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    again.add_argument("--overwrite", action="store_true", help="train into a folder that holds something already")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of matrix products; weights stay float32")
    add("--recompute", action="store_true", help="keep no activations: less memory, more time")
    add("--max-length", type=int, metavar="N", help="cut texts to N tokens")
    add("--skip-bad", action="store_true", help="leave out bad rows of the data and count them")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    open_closed_streams()
    args = build_parser().parse_args(argv)
    if args.list_recipes:
        return exit_code_of(lambda: print(describe_recipes(), flush=True), _say)
    stop = Stop()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _say(f"note: {message}")
        warnings.simplefilter("default", UserWarning)  # says everything once
        try:
            return run(args, stop)
        except MinisbertError as error:
            _say(str(error), everywhere=True)
            return error.exit_code
        except OSError as error:
            _say(f"{error.filename}: {error.strerror}" if error.filename else str(error), everywhere=True)
            return FILE_SYSTEM_EXIT_CODE
        except (RuntimeError, MemoryError) as error:
            from minisbert.devices import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            _say("out of memory; lower the batch size or --max-length, or pass --recompute", everywhere=True)
            return InputError.exit_code
        except KeyboardInterrupt:
            _say("stopped")
            return stop.exit_code


def run(args: argparse.Namespace, stop: Stop) -> int:
    """Do what the arguments say; errors are raised."""
    check_values(args)
    recipe = choose_recipe(args)
    output = choose_output(args)
    import torch

    from minisbert import SentenceEncoder
    from minisbert.devices import usable_device
    from minisbert.distributed import is_main_process, join_processes
    from minisbert.models.fast import EMULATES_BFLOAT16
    from minisbert.training import ko_mini as mini
    from minisbert.training.loop import Stopped, fit
    from minisbert.training.objectives import build_objectives, load_data

    with join_processes(args.device) as wanted:
        device = usable_device(wanted)
        examples, dev, test = load_data(
            recipe,
            own=args.train,
            folder=args.data,
            dev=args.dev,
            test=args.test,
            skip_bad=args.skip_bad,
            download_to=DATA_CACHE,
            show_progress_bar=not args.quiet and sys.stderr.isatty(),
        )
        objectives, sets = build_objectives(recipe, examples)
        if recipe.base is None:
            assert recipe.model_type is not None
            texts = (text for rows, _ in examples.values() for row in rows for text in row.texts)
            model = mini.new_model(recipe.model_type, texts, recipe.seed).to(device)
        else:
            model = SentenceEncoder.from_pretrained(recipe.base, device=device)
        if args.dtype == "bfloat16" and device.type == "cpu" and EMULATES_BFLOAT16:
            _say("note: this processor has no bfloat16 instructions: training is faster without --dtype bfloat16")
        if recipe.max_seq_length is not None:
            # What a recipe asks for is cut to what the model can do; what the user asks for is refused if it cannot.
            model.max_seq_length = args.max_length or min(recipe.max_seq_length, model.longest_text)
        if max(recipe.matryoshka_dims, default=0) > model.embedding_dimension:
            raise InputError(
                f"the model's vectors have {model.embedding_dimension} columns, too few for the "
                f"{max(recipe.matryoshka_dims)} that are to be trained; pass smaller --matryoshka-dims"
            )
        decomposed = model.tokenizer([text for each in sets for row in each.examples for text in row.texts]).not_nfc
        if decomposed:
            _say(
                f"note: {decomposed} of the first texts are not in Unicode normal form C (decomposed Hangul): compose them"
            )
        steps = min(len(objective.batches) for objective in objectives) * recipe.epochs
        steps = min(steps, args.max_steps or steps)
        # Rounded up, as the scripts that the models were trained with do.
        warmup = math.ceil(steps * recipe.warmup) if isinstance(recipe.warmup, float) else recipe.warmup
        start = time.time()
        stop.training = True
        try:
            with progress(args, steps) as (on_step, say):
                fit(
                    model,
                    objectives,
                    recipe.epochs,
                    learning_rate=recipe.learning_rate,
                    warmup_steps=warmup,
                    weight_decay=recipe.weight_decay,
                    max_grad_norm=recipe.max_grad_norm,
                    evaluator=dev,
                    evaluation_steps=args.evaluation_steps,
                    output=output,
                    checkpoint_steps=args.checkpoint_steps,
                    resume=args.resume,
                    seed=recipe.seed,
                    max_steps=args.max_steps,
                    optimizer=recipe.optimizer,
                    eps=recipe.eps,
                    autocast=torch.bfloat16 if args.dtype == "bfloat16" else None,
                    recompute_activations=args.recompute,
                    on_step=on_step,
                    on_evaluation=lambda step, result: say(f"step {step}: {_scores(result)}"),
                    should_stop=stop,
                )
        except Stopped:
            _say(f"stopped; go on with the same command and --resume (a checkpoint is in {output})")
            return stop.exit_code or TERMINATED_EXIT_CODE  # 0 where another process was stopped
        finally:
            stop.training = False
        if is_main_process():
            finish(args, output, recipe, sets, test, time.time() - start)
    return 0


def check_values(args: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, and names that cannot be written down as Unicode."""
    for name in ("model", "train", "data", "dev", "test", "output"):
        check_unicode(str(getattr(args, name)), f"--{name}")
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:  # NaN too
            option = "--" + name.replace("_", "-")
            expected = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise InputError(f"{option} must be {expected}, found {value}")


def choose_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that is asked for, or one for your own data, with what the flags change."""
    if args.recipe is None and args.train is None:
        raise InputError("give --recipe NAME (see --list-recipes) or --train FILE")
    if args.recipe is not None:
        recipe = RECIPES[args.recipe]
    else:
        if args.loss is None or args.model is None:
            raise InputError("--train needs --loss and --model")
        recipe = own_recipe(args.model, args.loss)
    owns_data = any(task.data == "own" for task in recipe.tasks)
    if owns_data != (args.train is not None):
        raise InputError(
            f"the recipe {recipe.name} {'needs' if owns_data else 'has its own data, it takes no'} --train FILE"
        )
    for option, value, data in (
        ("--loss", args.loss, "own"),
        ("--batch-size", args.batch_size, "own"),
        ("--nli-batch-size", args.nli_batch_size, "nli"),
        ("--sts-batch-size", args.sts_batch_size, "sts"),
    ):
        if value is not None and all(task.data != data for task in recipe.tasks):
            raise InputError(f"{option} has no meaning for the recipe {recipe.name}: it has no {data} data")
    if owns_data and args.data is not None:
        raise InputError("--data is for recipes with data of their own; give --train FILE alone")
    sizes = {"own": args.batch_size, "nli": args.nli_batch_size, "sts": args.sts_batch_size}
    tasks = tuple(  # --loss is there only if the one task has data of your own
        dataclasses.replace(task, batch_size=sizes.get(task.data) or task.batch_size, loss=args.loss or task.loss)
        for task in recipe.tasks
    )
    changes: dict[str, Any] = {
        "base": args.model,
        "epochs": args.epochs,
        "warmup": args.warmup_steps if args.warmup_steps is not None else args.warmup_ratio,
        "seed": args.seed,
        "learning_rate": args.lr,
        "weight_decay": args.weight_decay,
        "max_grad_norm": args.max_grad_norm,
        "max_seq_length": args.max_length,
        "matryoshka_dims": None if args.matryoshka_dims is None else _dims(args.matryoshka_dims),
    }
    return dataclasses.replace(
        recipe, tasks=tasks, **{name: value for name, value in changes.items() if value is not None}
    )


def choose_output(args: argparse.Namespace) -> Path:
    """The output folder, which is made if need be; one that is in use is refused."""
    from minisbert.training.log import METRICS

    output: Path = args.output or DATA_CACHE.parent / (args.recipe or "own")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: a file; name a folder")
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        if args.resume and not (output / METRICS).exists():
            raise InputError(f"{output}: no training run was here to go on with; name another folder")
        if not (args.resume or args.overwrite):
            raise InputError(f"{output}: not empty; pass --resume to go on, or --overwrite to train anew into it")
    return output


@contextlib.contextmanager
def progress(args: argparse.Namespace, steps: int) -> Iterator[Any]:
    """A progress bar with loss, learning rate and speed.

    Yields:
        The function that gets each step's report, and one that tells the user something meanwhile.
    """
    from minisbert.distributed import is_main_process

    if args.quiet or not sys.stderr.isatty() or not is_main_process():
        yield None, _say
        return
    from huggingface_hub.utils import tqdm

    with tqdm(total=steps, unit="step") as bar:

        def show(report: "StepReport") -> None:
            losses = " ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
            speed = report.tokens / report.seconds
            bar.set_postfix_str(f"{losses} lr {report.learning_rate:.1e} {speed:.0f} tokens/s", refresh=False)
            bar.update(report.step - bar.n)

        yield show, lambda message: bar.write(f"train.py: {message}", file=sys.stderr)


def finish(
    args: argparse.Namespace,
    output: Path,
    recipe: Recipe,
    sets: "list[TrainingSet]",
    test: "EmbeddingSimilarityEvaluator | None",
    seconds: float,
) -> None:
    """Measure what was kept, and write the model card and training.json beside it."""
    import torch

    from minisbert import SentenceEncoder
    from minisbert.files import read_json_object, write_json
    from minisbert.training.model_card import write_model_card, write_training_record

    model = SentenceEncoder.from_pretrained(output, device=args.device)
    if recipe.base is None:  # small on purpose: half precision halves the file, and rounds no score visibly
        model.to(torch.float16).save_pretrained(output)
        config = read_json_object(output / "config.json")
        write_json(output / "config.json", {**config, "torch_dtype": "float32"})  # what readers compute in
        model.float()
    scores = {}
    if test is not None:
        scores = test(model)
        _say(f"test: {_scores(scores)}")
    # Of paths the last part alone: where folders lie on this machine is nobody's concern.
    if recipe.base is not None and Path(recipe.base).exists():
        recipe = dataclasses.replace(recipe, base=Path(recipe.base).resolve().name)
    flags = {
        name: value.name if isinstance(value, Path) else str(value)
        for name, value in vars(args).items()
        if value is not None and value is not False
    }
    if args.model is not None:
        flags["model"] = str(recipe.base)  # as shortened above
    write_training_record(output, recipe, flags, sets, scores, seconds)
    write_model_card(output, model, recipe, sets, scores)
    _say(f"done in {seconds:.0f} seconds: {output}")


def _scores(result: dict[str, float]) -> str:
    """The numbers by which models are compared, x100."""
    parts = ((name.split("_"), value) for name, value in result.items() if name.endswith("_cosine"))
    return ", ".join(f"{correlation} {function} {100 * value:.2f}" for (*_, correlation, function), value in parts)


def _dims(text: str) -> tuple[int, ...]:
    if not all(part.isascii() and part.isdigit() and int(part) for part in text.split(",")):
        raise InputError(f"--matryoshka-dims {text}: expected whole numbers with commas, such as 768,256,64")
    return tuple(int(part) for part in text.split(","))


def _say(message: str, everywhere: bool = False) -> None:
    """Tell the user; of several processes only the first one does, but for what may have befallen one alone."""
    rank = os.environ.get("RANK", "0")
    if rank == "0" or everywhere:
        print(f"train.py: {message}" if rank == "0" else f"train.py: process {rank}: {message}", file=sys.stderr)
