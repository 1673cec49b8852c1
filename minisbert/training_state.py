"""Checkpoints of a training run: everything that decides how it goes on, written so that no crash can leave half of one.

A checkpoint is a folder, step-00000120, with the parameters, the moments of every optimizer, the states of the random
generators (all as safetensors) and state.json, which holds the rest and the SHA-256 of every other file. It is written under
another name, brought to the disk and renamed. Reading verifies the hashes; nothing is unpickled.
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minisbert.errors import ModelError
from minisbert.files import flush_to_disk, read_json_object, write_json

STATE = "state.json"
MODEL = "model.safetensors"
RANDOM = "random.safetensors"
KEPT = 2  # checkpoints; the one before the last is there for the case that the last is damaged


def save_state(
    folder: Path, step: int, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: Mapping[str, Any]
) -> Path:
    """Write a checkpoint after `step` steps, and remove those before the last two.

    Args:
        folder: holds the checkpoints.
        step: the number of steps done.
        model: its parameters are saved.
        optimizers: their moments are saved.
        state: whatever else is needed, as JSON.

    Returns:
        The folder of the checkpoint.
    """
    target = folder / f"step-{step:08}"
    temporary = folder / f".{target.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed while it wrote
    temporary.mkdir(parents=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {
        MODEL: {name: parameter.detach() for name, parameter in model.named_parameters()},
        RANDOM: _random_states(),
    }
    for number, optimizer in enumerate(optimizers):
        tensors[f"optimizer-{number}.safetensors"] = {
            f"{names[id(parameter)]}/{moment}": value
            for parameter, moments in optimizer.state.items()
            for moment, value in moments.items()
        }
    for name, contents in tensors.items():
        save_file({key: value.cpu().contiguous() for key, value in contents.items()}, temporary / name)
        with (temporary / name).open("rb+") as file:
            flush_to_disk(file)
    hashes = {name: _sha256(temporary / name) for name in tensors}
    write_json(temporary / STATE, {**state, "step": step, "sha256": hashes})
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    _flush_folder(folder)
    for old in list_checkpoints(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the last one first."""
    return sorted(folder.glob("step-*"), reverse=True)


def load_state(folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any] | None:
    """Take up the last checkpoint that is whole; a damaged one is passed over with a warning.

    Returns:
        What was given as `state` to `save_state`, and "step"; None if there is no whole checkpoint.
    """
    for path in list_checkpoints(folder):
        try:
            state = verify(path)
        except ModelError as error:
            warnings.warn(f"{error}; the checkpoint before it is used", stacklevel=2)
            continue
        _restore(path, model, optimizers)
        return state
    return None


def verify(path: Path) -> dict[str, Any]:
    """Check that no file of a checkpoint is missing or changed, and return its state.

    Raises:
        ModelError: one is; the message names it.
    """
    state = read_json_object(path / STATE)
    hashes = state.get("sha256")
    if not isinstance(hashes, dict) or type(state.get("step")) is not int:
        raise ModelError(f"{path / STATE}: not the state of a checkpoint")
    for name, expected in hashes.items():
        if not (path / name).is_file() or _sha256(path / name) != expected:
            raise ModelError(f"{path / name}: missing or damaged")
    return state


def _restore(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(path / MODEL).items():
            parameters[name].copy_(value)
    for number, optimizer in enumerate(optimizers):
        for key, value in load_file(path / f"optimizer-{number}.safetensors").items():
            name, _, moment = key.rpartition("/")
            parameter = parameters[name]
            # The step count stays on the CPU unless the fused kernel of CUDA reads it.
            optimizer.state[parameter][moment] = value.to(parameter.device) if parameter.is_cuda else value
    for device, state in load_file(path / RANDOM).items():
        if device == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available():
            torch.cuda.set_rng_state(state, device)


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
