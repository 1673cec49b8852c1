"""What train.py does after its checks: read the data, make the model, train it, measure it, write down how it was made."""

import argparse
import dataclasses
import functools
import shutil
import time
from pathlib import Path

import torch

from minisbert.cli.shared import Say, weights_folder
from minisbert.cli.train import Stop
from minisbert.devices import usable_device
from minisbert.distributed import is_main_process, join_processes
from minisbert.errors import TERMINATED_EXIT_CODE, HubError, InputError
from minisbert.files import read_json_object, replacing, write_json
from minisbert.models.fast import EMULATES_BFLOAT16
from minisbert.progress import ProgressBar, progress_bar
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.storage.hub_upload import check_name, prepare, upload
from minisbert.training import ko_mini
from minisbert.training.evaluators import Evaluator, shown_scores
from minisbert.training.log import EVALUATIONS, StepReport
from minisbert.training.loop import TRAINING_STATES, Stopped, fit
from minisbert.training.model_card import PLACEHOLDER, RECORD, write_model_card, write_training_record
from minisbert.training.objectives import ExamplesByTask, TrainingSet, build_objectives, load_data
from minisbert.training.recipes import Recipe


def train(args: argparse.Namespace, recipe: Recipe, output: Path, stop: Stop, say: Say) -> int:
    """Train by a recipe into the folder `output`; returns the exit code, errors are raised."""
    if args.push is not None:
        check_name(args.push)
    with join_processes(args.device) as wanted:
        if args.resume and (output / RECORD).exists():
            say(f"this run is finished: {output}; to train anew, pass --overwrite instead of --resume")
            if args.push is not None and is_main_process():
                push(output, args.push, say)
            return 0
        device = usable_device(wanted)
        files, show = (args.train, args.data, args.dev, args.test), False if args.quiet else None
        examples, dev, test, notes = load_data(recipe, *files, args.skip_bad, weights_folder() / "data", show)
        objectives, sets = build_objectives(recipe, examples)
        model = starting_model(recipe, examples, device, args.max_length)
        if recipe.plan.autocast == "bfloat16" and device.type == "cpu" and EMULATES_BFLOAT16:
            say("note: this processor has no bfloat16 instructions: training is faster without --dtype bfloat16")
        decomposed = model.tokenizer([text for each in sets for row in each.examples for text in row.texts]).not_nfc
        if decomposed:
            say(f"note: {decomposed} of the first texts are not in Unicode normal form C (decomposed Hangul): compose them")
        for note in notes:
            say(note)
        if args.push is not None and is_main_process():
            prepare(args.push, private=True)  # now: who has no right to upload should not learn it after hours
        evaluator, before = test or dev, {}
        if is_main_process():
            (output / RECORD).unlink(missing_ok=True)  # of an earlier run: it says that a run is finished
            if evaluator is not None:
                before = evaluator(model)
                say(f"before training, {evaluator.name}: {shown_scores(evaluator, before)}")
        start = time.time()
        stop.training = True
        try:
            with progress_bar(None, False if args.quiet or not is_main_process() else None, unit="step", leave=True) as bar:
                on_step = functools.partial(show_step, bar, dev, dataclasses.replace(say, write=bar.write))
                fit(model, objectives, recipe.plan, output, dev, args.resume, on_step, stop)
        except Stopped:
            say(f"stopped; go on with the same command and --resume (the training state is in {output})")
            return stop.exit_code or TERMINATED_EXIT_CODE  # 0 where another process was stopped
        finally:
            stop.training = False
        if is_main_process():
            finish(args, output, recipe, sets, evaluator, before, time.time() - start, say)
            if args.push is not None:
                push(output, args.push, say)
    return 0


def starting_model(recipe: Recipe, examples: ExamplesByTask, device: torch.device, max_length: int | None) -> SentenceEncoder:
    """The model that a recipe starts from, on its device."""
    if recipe.base is not None:
        model = SentenceEncoder.from_pretrained(recipe.base, device=device)
    else:
        assert recipe.model_type is not None
        texts = (text for rows, _ in examples.values() for row in rows for text in row.texts)
        model = ko_mini.new_model(recipe.model_type, texts, recipe.plan.seed).to(device)
    if recipe.max_seq_length is not None:
        # What a recipe asks for is cut to what the model can do; what the user asks for is refused if it cannot.
        model.max_seq_length = max_length or min(recipe.max_seq_length, model.config.longest_text)
    if max(recipe.matryoshka_dims, default=0) > model.embedding_dimension:
        raise InputError(
            f"the model's vectors have {model.embedding_dimension} columns, too few for the "
            f"{max(recipe.matryoshka_dims)} that are to be trained; pass smaller --matryoshka-dims"
        )
    return model


def show_step(bar: ProgressBar, dev: Evaluator | None, say: Say, report: StepReport) -> None:
    """Show losses, learning rate and speed after the bar, and the score of an evaluation above it."""
    losses = " ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
    after = f"{losses} lr {report.learning_rate:.1e} {report.tokens / report.seconds:.0f} tokens/s"
    bar.move_to(report.step, total=report.total_steps, after=after)
    if dev is not None and report.evaluation is not None:
        say(f"step {report.step}: {shown_scores(dev, report.evaluation)}")


def finish(
    args: argparse.Namespace,
    output: Path,
    recipe: Recipe,
    sets: list[TrainingSet],
    evaluator: Evaluator | None,
    before: dict[str, float],
    seconds: float,
    say: Say,
) -> None:
    """Measure what was kept, and write the model card and training.json beside it."""
    model = SentenceEncoder.from_pretrained(output, device=args.device)
    if recipe.base is None:  # small on purpose: half precision halves the file, and rounds no score visibly
        model.to(torch.float16).save_pretrained(output)
        config = read_json_object(output / "config.json")
        write_json(output / "config.json", {**config, "torch_dtype": "float32"})  # what readers compute in
        model.float()
    after = {}
    if evaluator is not None:
        after = evaluator(model)
        say(f"after training, {evaluator.name}: {shown_scores(evaluator, after)}")
    # Of paths the last part alone: where folders lie on this machine is nobody's concern.
    if recipe.base is not None and Path(recipe.base).exists():
        recipe = dataclasses.replace(recipe, base=Path(recipe.base).resolve().name)
    given = {name: value for name, value in vars(args).items() if value is not None and value is not False}
    flags = {name: value.name if isinstance(value, Path) else str(value) for name, value in given.items()}
    if args.model is not None:
        flags["model"] = str(recipe.base)  # as shortened above
    write_model_card(output, model, recipe, sets, evaluator, before, after)
    write_training_record(output, recipe, flags, sets, before, after, seconds)
    shutil.rmtree(output / TRAINING_STATES, ignore_errors=True)  # there is nothing left to go on to
    say(f"done in {seconds:.0f} seconds: {output}")


def push(output: Path, name: str, say: Say) -> None:
    """Upload the model with its card, which is told where it lies; a repository made for it is private: cards quote data."""
    card = output / "README.md"
    text = card.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
    with replacing(card) as file:
        file.write(text.encode())
    say(f"uploading {output} to {name}")
    try:
        address = upload(output, name, private=True, others=(card.name, RECORD, f"{EVALUATIONS}/*.csv"))
    except HubError as error:
        raise HubError(f"{error}; the model is in {output}: the same command with --resume uploads it") from None
    say(f"uploaded: {address}")
