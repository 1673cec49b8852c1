"""Tensors from a checkpoint into a model and back: all of them or an error.

A folder holds its weights as model.safetensors, as several safetensors files with an index, or as pytorch_model.bin (a
pickle, read with the restricted unpickler of torch and nothing less safe). Whatever the form, first the names, shapes
and dtypes are compared with what the model needs, and every difference is reported in one error; only then is
anything copied into the model.
Formats: https://github.com/huggingface/safetensors (8 bytes of length, a JSON header, the data); `torch.save`.
"""

import errno
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from minisbert.errors import ModelError, one_line
from minisbert.files import PLAIN_NAME, flush_to_disk, parse_json_object, read_json_object, refuse_pointer
from minisbert.models.fast import Linear
from minisbert.models.int8 import Int8Linear
from minisbert.models.tensor_names import WRAPPERS, TensorNames

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PYTORCH_BIN = "pytorch_model.bin"

# The dtypes a weight may have, under their names in a safetensors header.
FLOATING_POINT = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LARGEST_HEADER = 8 * 2**20  # bytes; the header of a 24-layer model has some 50,000
Shape = tuple[int, ...]
OLD_ENDINGS = {"gamma": "weight", "beta": "bias"}  # what the first checkpoints called the parameters of LayerNorm


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that lies in a file: what it is, and how to read it."""

    file: Path
    dtype: str  # as in a safetensors header: "F32"
    shape: Shape
    read: Callable[[], Tensor]


def load_checkpoint(
    folder: Path,
    encoder: nn.Module,
    tensor_names: TensorNames,
    device: str | torch.device | None = None,
    int8: bool = False,
) -> dict[str, Tensor]:
    """Fill the parameters of an encoder from the weights in a folder, converted to the dtype of each parameter.

    `device` is for an encoder on the meta device, which has shapes alone: memory is taken there after the weights are known
    to fit. If they do not fit, a ModelError says so and no parameter has been touched; one with NaN is found only later.
    Returns the pooler weights by checkpoint name, on the CPU: not computed with, but to be saved again.
    With `int8`, linear maps become 8-bit ones as they are read.
    """
    stored = _current_names(_open(folder), tensor_names.prefix)
    shapes = {name: tuple(parameter.shape) for name, parameter in _by_checkpoint_name(encoder, tensor_names).items()}
    _compare(stored, shapes | _pooler_shapes(encoder, tensor_names), tensor_names, folder)
    config: Any = encoder.config
    checkpoint_names = {parameter: name for name, parameter in tensor_names.by_checkpoint_name(encoder, config.layers).items()}
    with torch.no_grad():
        for module_name in [name for name, _ in encoder.named_modules()]:
            module = encoder.get_submodule(module_name)
            names = {leaf: checkpoint_names[f"{module_name}.{leaf}"] for leaf, _ in module.named_parameters(recurse=False)}
            tensors = {leaf: _read_finite(name, stored[name]) for leaf, name in names.items()}
            if int8 and isinstance(module, Linear):
                encoder.set_submodule(module_name, Int8Linear(**tensors))
                continue
            if device is not None:
                module.to_empty(device=device, recurse=False)
            for leaf, tensor in tensors.items():
                module.get_parameter(leaf).copy_(tensor)
    # Copied, for what was read may be the file itself, mapped into memory.
    return {name: _read_finite(name, stored[name]).clone() for name in tensor_names.pooler_weights if name in stored}


def save_checkpoint(folder: Path, encoder: nn.Module, tensor_names: TensorNames, pooler_weights: Mapping[str, Tensor]) -> None:
    """Write model.safetensors with the names that other libraries expect.

    Pooler weights that were never there (a masked-language model has none) are written as zeros, because readers
    that want them would otherwise warn; no sentence embedding depends on them.
    """
    tensors = {name: parameter.detach() for name, parameter in _by_checkpoint_name(encoder, tensor_names).items()}
    dtype = next(iter(tensors.values())).dtype
    for name, shape in _pooler_shapes(encoder, tensor_names).items():
        tensors[name] = (pooler_weights[name] if name in pooler_weights else torch.zeros(shape)).to(dtype)
    write_tensors(folder / SAFETENSORS, tensors)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file and bring it to the disk."""
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    except safetensors.SafetensorError as error:  # the disk is full, most often
        raise OSError(errno.EIO, one_line(error), str(path)) from None
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)  # save_file makes files that only their owner can read
    with path.open("rb+") as file:
        flush_to_disk(file)


def _by_checkpoint_name(encoder: nn.Module, tensor_names: TensorNames) -> dict[str, nn.Parameter]:
    config: Any = encoder.config
    parameters = dict(encoder.named_parameters())
    names = tensor_names.by_checkpoint_name(encoder, config.layers)
    return {checkpoint_name: parameters[parameter_name] for checkpoint_name, parameter_name in names.items()}


def _pooler_shapes(encoder: nn.Module, tensor_names: TensorNames) -> dict[str, Shape]:
    """The pooler is a linear map from D to D: a weight and a bias."""
    config: Any = encoder.config
    width = config.width
    return {name: (width, width) if name.endswith("weight") else (width,) for name in tensor_names.pooler_weights}


def _compare(
    stored: Mapping[str, StoredTensor], expected: Mapping[str, Shape], tensor_names: TensorNames, folder: Path
) -> None:
    """Report every difference between the tensors stored and the tensors expected in one error."""
    problems: list[str] = []
    missing = [name for name in expected if name not in stored and name not in tensor_names.pooler_weights]
    if missing:
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    unexpected = [name for name in stored if name not in expected and not tensor_names.leaves_behind(name)]
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    for name, shape in expected.items():
        if name in stored and (stored[name].shape != shape or stored[name].dtype not in FLOATING_POINT):
            found = stored[name]
            problems.append(f"{name} is {found.dtype} {list(found.shape)}, expected a floating point {list(shape)}")
    if problems:
        file = next(iter(stored.values())).file if stored else folder
        more = "; ..." if len(problems) > 6 else ""
        raise ModelError(f"{file}: does not fit config.json: {'; '.join(problems[:6])}{more}")


def _current_names(stored: Mapping[str, StoredTensor], prefix: str) -> dict[str, StoredTensor]:
    """Drop the prefixes of wrappers and of models with a head, and call LayerNorm's parameters as is usual today."""
    plain: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        bare = name
        for wrapper in WRAPPERS:
            bare = bare.removeprefix(wrapper)
        stem, dot, ending = bare.removeprefix(prefix).rpartition(".")
        short = stem + dot + OLD_ENDINGS.get(ending, ending)
        if short in plain:
            twins = f"two tensors mean {_some([short])}: with and without {prefix!r} or under an old name"
            raise ModelError(f"{tensor.file}: {twins}")
        plain[short] = tensor
    return plain


def _read_finite(name: str, stored: StoredTensor) -> Tensor:
    tensor = stored.read()
    # The smallest and the largest value are NaN if any is, and found without a copy.
    if not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
        raise ModelError(f"{stored.file}: the tensor {name} holds NaN or infinite values; get the file anew")
    return tensor


def _open(folder: Path) -> dict[str, StoredTensor]:
    """Find the weights of a folder and list what they hold."""
    forms = {SAFETENSORS: _open_safetensors, SAFETENSORS_INDEX: _open_shards, PYTORCH_BIN: _open_pytorch_bin}
    for name, open_form in forms.items():
        if (folder / name).exists():
            return open_form(folder / name)
    raise ModelError(f"{folder}: no weights: neither {SAFETENSORS}, {SAFETENSORS_INDEX} nor {PYTORCH_BIN} is there")


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    refuse_pointer(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            # The package allows 100 MB, in which so many tensors can be named that they take a gigabyte.
            if length > LARGEST_HEADER:
                raise ModelError(f"{path}: not a safetensors file: its header would have {length} bytes")
            header = file.read(length)
        # The package checks JSON, dtypes and shapes, and that the tensors fill the rest of the file.
        with safetensors.safe_open(path, framework="pt") as tensors:
            stored = {name: _stored_tensor(path, name, tensors.get_slice(name)) for name in tensors.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise ModelError(f"{path}: {size} bytes, not a safetensors file, or cut off: {one_line(error)}") from None
    # The package takes a name that occurs twice for the second of the two; strict JSON refuses it.
    parse_json_object(header, f"{path}: header")
    return stored


def _stored_tensor(path: Path, name: str, view: Any) -> StoredTensor:
    def read() -> Tensor:
        # Opened anew for every tensor: what is mapped into memory is then given back when the tensor is.
        with safetensors.safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return StoredTensor(path, view.get_dtype(), tuple(view.get_shape()), read)


def read_shard_index(path: Path) -> dict[str, str]:
    """Read model.safetensors.index.json: name of a tensor -> name of the file, in the same folder, that holds it."""
    files = read_json_object(path).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{path}: expected a weight_map from tensor to file name")
    outside = next((file for file in files.values() if not PLAIN_NAME.fullmatch(file)), None)
    if outside is not None:
        raise ModelError(f"{path}: names the file {outside!r:.80}, which is not in this folder")
    return files


def _open_shards(path: Path) -> dict[str, StoredTensor]:
    """Open the files that an index names."""
    files = read_shard_index(path)
    stored: dict[str, StoredTensor] = {}
    for file in sorted(set(files.values())):
        if not (path.parent / file).is_file():
            raise ModelError(f"{path}: names the file {file!r:.80}, which is missing")
        for name, tensor in _open_safetensors(path.parent / file).items():
            if name in stored:
                raise ModelError(f"{path}: the tensor {_some([name])} is in two files")
            stored[name] = tensor
    strays = [name for name in files | stored if name not in stored or stored[name].file.name != files.get(name)]
    if strays:
        raise ModelError(f"{path}: index and files disagree about {_some(strays)}")
    return stored


def _open_pytorch_bin(path: Path) -> dict[str, StoredTensor]:
    refuse_pointer(path)
    try:
        # Files from before torch 1.6 are no zip archives and cannot be mapped into memory.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise anything; nothing has run, weights_only sees to that
        reason = one_line(str(error).partition("\n")[0])  # the rest is advice on how to read it unsafely
        raise ModelError(f"{path}: not a file of tensors that can be read safely: {reason}") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.is_cpu
        for name, tensor in tensors.items()
    ):
        raise ModelError(f"{path}: expected a dictionary of plain tensors, found something else")
    dtypes = {dtype: name for name, dtype in FLOATING_POINT.items()}
    return {
        name: StoredTensor(path, dtypes.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), tensor.detach)
        for name, tensor in tensors.items()
    }


def _some(names: Sequence[str]) -> str:
    """A few names for a message; what is not printable in them is escaped."""
    return ", ".join(repr(name)[1:-1][:80] for name in names[:5]) + (", ..." if len(names) > 5 else "")
