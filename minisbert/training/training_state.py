"""The state of a training run: everything that decides how it goes on, written so that no crash can leave half of it.

A training state is a folder, step-00000120, with the parameters, the moments of every optimizer (as safetensors), state.json,
which holds the rest, and sha256.json, the SHA-256 of every other file. It is written under another name, brought to the disk
and renamed. Reading verifies the hashes; nothing is unpickled.
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from minisbert.distributed import process_count
from minisbert.errors import InputError, ModelError
from minisbert.files import file_hash, read_json_object, write_json
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.storage.weights import write_tensors
from minisbert.training.losses import Objective
from minisbert.training.plan import Plan, Schedule

STATE = "state.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer-{}.safetensors"
HASHES = "sha256.json"
KEPT = 2  # training states; the one before the last is there in case the last is damaged


def run_settings(
    model: SentenceEncoder, objectives: Mapping[str, Objective], plan: Plan, schedule: Schedule, evaluator: str | None
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, as JSON: the model, the objectives by name, and the plan."""
    config = vars(model.encoder.config)
    return {
        "encoder": type(model.encoder).__name__,
        **{name: sorted(value) if isinstance(value, frozenset) else value for name, value in config.items()},
        "pooling": model.pooling.mode,
        "max_seq_length": model.max_seq_length,
        "tokenizer": hashlib.sha256(model.tokenizer.backend.to_str().encode()).hexdigest(),
        "objectives": [
            f"{name}: {len(each.batches)} batches, {each.loss if is_dataclass(each.loss) else type(each.loss).__name__}"
            for name, each in objectives.items()
        ],
        **asdict(schedule),
        **plan.settings(),
        "evaluator": evaluator,
        "processes": process_count(),
    }


def save_state(
    folder: Path, step: int, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: Mapping[str, Any]
) -> None:
    """Write the training state after `step` steps into `folder`, and remove all others except the one before it.

    `state` is what is needed beside parameters and moments, as JSON. If it cannot be written, which is an OSError, those that
    were there before are left as they were.
    """
    target, temporary = folder / f"step-{step:08}", folder / ".part"
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {MODEL: {name: parameter.detach() for name, parameter in model.named_parameters()}}
    for number, optimizer in enumerate(optimizers):
        tensors[OPTIMIZER.format(number)] = {
            f"{names[id(parameter)]}/{moment}": value
            for parameter, moments in optimizer.state.items()
            for moment, value in moments.items()
        }
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed while it wrote
    temporary.mkdir(parents=True)
    try:
        for name, contents in tensors.items():
            write_tensors(temporary / name, contents)
        write_json(temporary / STATE, {**state, "step": step})
        write_json(temporary / HASHES, {name: file_hash(temporary / name, "sha256") for name in (*tensors, STATE)})
        _flush_folder(temporary)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one
        temporary.replace(target)
        _flush_folder(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    # Those of later steps were damaged, or the run would not have come from an earlier one.
    later = [path for path in list_states(folder) if path > target]
    for path in [*later, *list_states(folder)[len(later) + KEPT :]]:
        shutil.rmtree(path, ignore_errors=True)


def list_states(folder: Path) -> list[Path]:
    """The training states in `folder`, the last one first."""
    return sorted(folder.glob("step-*"), reverse=True)


def load_state(
    folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], run: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Take up the last training state in `folder` that is whole; a damaged one is passed over with a warning.

    Returns what was given as `state` to `save_state`, and "step"; None if there is none. It must say `run` under "run", see
    `run_settings`.

    Raises:
        ModelError: there are training states, but all are damaged.
        InputError: the last whole one is of a run with other settings.
    """
    damage: ModelError | None = None
    for path in list_states(folder):
        try:
            state = verify(path)
        except ModelError as error:
            warnings.warn(f"{error}; this training state is passed over", stacklevel=2)
            damage = error
            continue
        for name, value in run.items():
            if (found := (state.get("run") or {}).get(name)) != value:
                raise InputError(
                    f"{path}: of another run, with {name} {found!s:.80} instead of {value!s:.80}; go on with the settings "
                    "it was begun with, or train anew"
                )
        _restore(path, model, optimizers)
        return state
    if damage is not None:
        raise ModelError(f"{damage}; no training state is left to go on from, train anew")
    return None


def verify(path: Path) -> dict[str, Any]:
    """Read state.json of a training state; a file that is missing or changed is a ModelError, which names it."""
    for name, expected in read_json_object(path / HASHES).items():
        if not (path / name).is_file() or file_hash(path / name, "sha256") != expected:
            raise ModelError(f"{path / name}: missing or damaged")
    return read_json_object(path / STATE)


def _restore(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(path / MODEL).items():
            parameters[name].copy_(value)
    for number, optimizer in enumerate(optimizers):
        for key, value in load_file(path / OPTIMIZER.format(number)).items():
            name, _, moment = key.rpartition("/")
            # Copied, for `value` is the file itself, mapped into memory, and the file will be removed.
            optimizer.state[parameters[name]][moment] = value.to(parameters[name].device, copy=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
