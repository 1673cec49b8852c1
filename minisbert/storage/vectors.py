"""Vectors to and from a file: .npy, .npz, .safetensors or .jsonl; in float32 or, for less space, in float16 or int8.

Rows are appended to a temporary file beside the final one, so memory does not grow with their number. At the end the file is
completed, brought to the disk and renamed. A journal says which blocks the temporary file holds. Both stay after an
interruption, and a later run goes on after the last of these blocks, with the same bytes as result.

Of int8 the codes are whole numbers, -127 to 127, and each column has a scale: value = code * scale. In .npz and .safetensors
the scales are an array of their own, "scale"; in .npy they are a second array behind the first, which `numpy.load` reads alone.

numpy is imported for types alone: a command line checks the name of its output before it loads anything large.
"""

import contextlib
import hashlib
import itertools
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from minisbert.errors import InputError, ModelError, NonFiniteError, one_line
from minisbert.files import flush_to_disk, read_json_object, replacing, write_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUFFIXES = (".npy", ".npz", ".safetensors", ".jsonl")
TENSOR_NAME = "embeddings"  # of the one array in .npz and .safetensors
SCALE_NAME = "scale"  # of the numbers that the columns of int8 are multiplied with
DTYPES = {"float32": ("<f4", "F32"), "float16": ("<f2", "F16"), "int8": ("|i1", "I8")}  # as .npy and .safetensors write them
ROWS_AT_ONCE = 16384  # that are converted at a time
HEADER_LENGTH = 128  # bytes; a multiple of 64, as .npy asks for, with room for any shape


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse, before any work is done, an output that could not be written at the end: an `InputError` or `OSError`."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: the name must end with one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path}: a folder; name a file in it")
    for name in (path, record_path(path)):
        if name.exists() and not overwrite:
            raise InputError(f"{name}: exists already; pass --overwrite to replace it")
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        error.filename = str(path)  # the user has not heard of the probe
        raise


def record_path(path: Path) -> Path:
    """FILE.json, which says what made the vectors of FILE."""
    return path.with_name(f"{path.name}.json")


class TextDigest:
    """A hash of texts in their order, however they are divided into blocks."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, texts: Iterable[str]) -> None:
        """Go on with these texts."""
        for text in texts:
            data = text.encode()
            self._hash.update(len(data).to_bytes(8, "little") + data)

    def hexdigest(self) -> str:
        """The hash of all texts so far, in hexadecimal digits."""
        return self._hash.hexdigest()


def json_line(text: str, vector: "npt.NDArray[np.float32]") -> str:
    """One row as a line of JSON; with nine digits, no two float32 numbers look the same."""
    numbers = ", ".join(f"{number:.9g}" for number in vector.tolist())
    return f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{numbers}]}}\n'


class VectorFile:
    """A file of vectors that grows block by block and appears under its name when it is complete."""

    def __init__(self, path: Path, precision: str = "float32") -> None:
        """Begin a file whose vectors have this precision: one of `DTYPES`; .jsonl has float32 alone."""
        self.path = path
        self.precision = precision
        self.form = path.suffix.lower()
        self.rows = 0
        self._part = path.with_name(f".{path.name}.part")
        self._journal = path.with_name(f".{path.name}.journal")
        self.texts = TextDigest()
        self._file = self._part.open("r+b" if self._part.exists() else "w+b")
        if sys.platform != "win32":  # there is no fcntl on Windows, so nothing is checked there
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise InputError(f"{path}: another run is writing it; wait for it or choose another name") from None

    def resume(self, run: dict[str, Any], texts: Iterator[str]) -> int:
        """Go on with an interrupted run, if there is one; returns how many rows are done, whose texts are taken from `texts`.

        `run` is what the vectors depend on: if the interrupted one had another, or other texts, that is an InputError.
        """
        journal = self._read_journal()
        if journal is None:
            return 0
        if journal["run"] != run:
            other = "another model, other options or another version of minisbert"
            raise InputError(f"{self.path}: the interrupted run had {other}; start anew without --resume")
        self.texts.update(itertools.islice(texts, journal["rows"]))
        if journal["texts"] != self.texts.hexdigest():
            raise InputError(f"{self.path}: the input is not that of the interrupted run; start anew without --resume")
        self.rows = int(journal["rows"])
        self._file.seek(journal["bytes"])
        self._file.truncate()
        return self.rows

    def append(self, texts: Sequence[str], vectors: "npt.NDArray[np.float32]") -> None:
        """Add the vectors (n, D) of the next n texts."""
        if self.rows == 0:
            self._begin()
        if self.form == ".jsonl":
            self._file.writelines(json_line(*row).encode() for row in zip(texts, vectors, strict=True))
        else:
            self._file.write(vectors.astype("<f4", order="C", copy=False).data)
        self.texts.update(texts)
        self.rows += len(texts)

    def note(self, run: dict[str, Any]) -> None:
        """Bring what was appended to the disk and note it in the journal."""
        flush_to_disk(self._file)
        done = {"rows": self.rows, "bytes": self._file.tell(), "texts": self.texts.hexdigest()}
        write_json(self._journal, {**done, "run": run})

    def finish(self, width: int) -> None:
        """Complete the file, of vectors with `width` columns, and give it its name."""
        if self.rows == 0:
            self._begin()
        self._file.seek(0)
        # At the start, the number of rows was not known. What becomes another file is .npy until then.
        copied = self.form == ".npz" or self.precision != "float32"
        self._file.write(_header(".npy" if copied else self.form, self.rows, width))
        flush_to_disk(self._file)
        if copied:
            self._convert(width)  # before the file is closed, which gives up the lock
        self._file.close()
        if not copied:
            self._part.replace(self.path)
        self._discard()

    def close(self) -> int:
        """Stop before the end; returns the number of rows that can be resumed, of this run or an earlier one."""
        with contextlib.suppress(OSError):  # a disk that is full cannot take what is still in the buffer either
            self._file.close()
        if journal := self._read_journal():
            return int(journal["rows"])
        self._discard()
        return 0

    def _begin(self) -> None:
        """Remove what an interrupted run has left, and leave room for the header, whose length is always the same."""
        self._journal.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(_header(self.form, 0, 0))  # as long as that of .npy, which some forms are made from

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _read_journal(self) -> dict[str, Any] | None:
        """What `note` has written last; None if there is nothing, or the temporary file is shorter than it says."""
        try:
            journal = read_json_object(self._journal)
            whole = 0 < journal["rows"] and 0 <= journal["bytes"] <= self._part.stat().st_size
            return journal if whole and {"texts", "run"} <= journal.keys() else None
        except (ModelError, OSError, KeyError, TypeError):
            return None

    def _convert(self, width: int) -> None:
        """Write the final file from the temporary one, block by block."""
        import numpy as np

        vectors = np.memmap(self._part, "<f4", "r", HEADER_LENGTH, (self.rows, width)) if self.rows else np.empty((0, width))
        scale = None
        if self.precision == "int8":
            scale = np.zeros(width, dtype="<f4")
            for begin in range(0, self.rows, ROWS_AT_ONCE):
                scale = np.maximum(scale, np.abs(vectors[begin : begin + ROWS_AT_ONCE]).max(axis=0) / np.float32(127))

        def write(file: BinaryIO | IO[bytes], form: str) -> None:
            file.write(_header(form, self.rows, width, self.precision))
            for begin in range(0, self.rows, ROWS_AT_ONCE):
                block = vectors[begin : begin + ROWS_AT_ONCE]
                if scale is not None:
                    block = np.rint(block / np.where(scale > 0, scale, 1))
                elif self.precision == "float16" and np.abs(block).max() > np.finfo(np.float16).max:
                    raise NonFiniteError(f"{self.path}: a value is too large for float16; save float32")
                file.write(np.ascontiguousarray(block, dtype=DTYPES[self.precision][0]).data)

        with replacing(self.path) as target:
            if self.form != ".npz":
                write(target, self.form)
                if scale is not None:
                    target.write((_npy_header((width,), "<f4") if self.form == ".npy" else b"") + scale.tobytes())
                return
            with zipfile.ZipFile(target, "w") as archive:
                # The dates are fixed, so that equal vectors make equal files.
                with archive.open(zipfile.ZipInfo(f"{TENSOR_NAME}.npy"), "w", force_zip64=True) as packed:
                    write(packed, ".npy")
                if scale is not None:
                    archive.writestr(zipfile.ZipInfo(f"{SCALE_NAME}.npy"), _npy_header((width,), "<f4") + scale.tobytes())


def _header(form: str, rows: int, width: int, precision: str = "float32") -> bytes:
    """The start of a file of vectors (rows, width): .npy format 1.0, or safetensors; both may be filled up with spaces."""
    numpy_name, name = DTYPES[precision]
    if form == ".jsonl":
        return b""
    if form == ".safetensors":
        size = rows * width * int(numpy_name[-1])
        tensors = {TENSOR_NAME: {"dtype": name, "shape": [rows, width], "data_offsets": [0, size]}}
        if precision == "int8":
            tensors[SCALE_NAME] = {"dtype": "F32", "shape": [width], "data_offsets": [size, size + 4 * width]}
        text = json.dumps(tensors, separators=(",", ":")).encode()
        length = HEADER_LENGTH * (2 if precision == "int8" else 1) - 8
        return length.to_bytes(8, "little") + text.ljust(length)
    return _npy_header((rows, width), numpy_name)


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (HEADER_LENGTH - 10).to_bytes(2, "little") + text.ljust(HEADER_LENGTH - 11) + b"\n"


class Int8Vectors:
    """Codes (N, D) int8 and the scale (D,) of their columns; a slice of the rows is float32."""

    def __init__(self, codes: "npt.NDArray[np.int8]", scale: "npt.NDArray[np.float32]") -> None:
        self.codes, self.scale, self.shape = codes, scale, codes.shape

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> "npt.NDArray[np.float32]":
        return self.codes[rows] * self.scale


def open_vectors(path: Path) -> Any:
    """The vectors of a file (N, D), for `minisbert.search`: mapped from .npy and .safetensors, read from .npz and .jsonl.

    If it holds none, that is an InputError.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    scale, form = None, path.suffix.lower()
    with path.open("rb") as file:
        try:
            if form == ".npy":
                vectors = np.load(path, mmap_mode="r", allow_pickle=False)
                file.seek(vectors.offset + vectors.nbytes)
                scale = np.load(file, allow_pickle=False) if vectors.dtype == np.int8 else None
            elif form == ".npz":
                with np.load(file, allow_pickle=False) as arrays:
                    vectors = arrays[TENSOR_NAME]
                    scale = arrays[SCALE_NAME] if vectors.dtype == np.int8 else None
            elif form == ".safetensors":
                tensors = load_file(path)
                vectors = tensors[TENSOR_NAME].numpy()
                scale = tensors[SCALE_NAME].numpy() if vectors.dtype == np.int8 else None
            elif form == ".jsonl":
                vectors = np.array([json.loads(line)["embedding"] for line in file], dtype=np.float32)
                vectors = vectors if vectors.size else vectors.reshape(0, 1)
            else:
                raise ValueError(f"the name must end with one of {', '.join(SUFFIXES)}")
            if vectors.ndim != 2 or vectors.dtype not in (np.float32, np.float16, np.int8, np.float64):
                raise ValueError(f"found {vectors.dtype} {vectors.shape}, expected numbers (rows, columns)")
            if scale is not None and scale.shape != vectors.shape[1:]:
                raise ValueError("the scales of its columns are missing")
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
            raise InputError(f"{path}: no file of vectors: {one_line(error)}") from None
    return vectors if scale is None else Int8Vectors(vectors, np.asarray(scale))
