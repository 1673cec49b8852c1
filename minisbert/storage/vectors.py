"""Write vectors to a file, block by block: .npy, .npz, .safetensors or .jsonl.

Rows are appended to a temporary file beside the final one, so memory does not grow with their number. At the end the file is
completed, brought to the disk and renamed. A journal says which blocks the temporary file holds. Both stay after an
interruption, and a later run goes on after the last of these blocks, with the same bytes as result.

numpy is imported for types alone: a command line checks the name of its output before it loads anything large.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minisbert.errors import InputError, ModelError
from minisbert.files import flush_to_disk, read_json_object, replacing, write_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUFFIXES = (".npy", ".npz", ".safetensors", ".jsonl")
TENSOR_NAME = "embeddings"  # of the one array in .npz and .safetensors
HEADER_LENGTH = 128  # bytes; a multiple of 64, as .npy asks for, with room for any shape


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse, before any work is done, an output that could not be written at the end: an `InputError` or `OSError`."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: the name must end with one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path}: a folder; name a file in it")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; pass --overwrite to replace it")
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        error.filename = str(path)  # the user has not heard of the probe
        raise


def json_line(text: str, vector: "npt.NDArray[np.float32]") -> str:
    """One row as a line of JSON; with nine digits, no two float32 numbers look the same."""
    numbers = ", ".join(f"{number:.9g}" for number in vector.tolist())
    return f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{numbers}]}}\n'


class TextDigest:
    """A hash of texts in their order, however they come in blocks."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, texts: Iterable[str]) -> None:
        """Add the next texts."""
        for text in texts:
            data = text.encode()
            self._hash.update(len(data).to_bytes(8, "little") + data)

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()


def record_path(path: Path) -> Path:
    """The file beside a file of vectors that says what made them."""
    return path.with_name(f"{path.name}.json")


def open_vectors(path: Path) -> "npt.NDArray[np.floating]":
    """The vectors (N, D) of a file that was written here, or of any array in .npy; that form is not read into memory.

    Raises:
        InputError: it is damaged or no file of vectors.
        OSError: it cannot be read.
    """
    import numpy as np
    import safetensors.numpy

    vectors: Any = None
    try:
        match path.suffix.lower():
            case ".npy":
                vectors = np.load(path, mmap_mode="r")
            case ".npz":
                vectors = np.load(path)[TENSOR_NAME]
            case ".safetensors":
                vectors = safetensors.numpy.load_file(path)[TENSOR_NAME]
            case ".jsonl":
                with path.open(encoding="utf-8") as file:
                    vectors = np.array([json.loads(line)["embedding"] for line in file], dtype=np.float32, ndmin=2)
    except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError):
        raise InputError(f"{path}: damaged, or not a file of vectors; write it again with -o") from None
    if vectors is None or vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise InputError(f"{path}: expected vectors (N, D) in .npy, .npz, .safetensors or .jsonl; write them with -o")
    return vectors


class VectorFile:
    """A file of vectors that grows block by block and appears under its name when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        self._file.write(_header(self.form, self.rows, width))  # at the start, the number of rows was not known
        flush_to_disk(self._file)
        if self.form == ".npz":
            self._pack_npz()  # before the file is closed, which gives up the lock
        self._file.close()
        if self.form != ".npz":
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
        self._file.write(_header(self.form, 0, 0))

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

    def _pack_npz(self) -> None:
        entry = zipfile.ZipInfo(f"{TENSOR_NAME}.npy")  # its date is fixed, so that equal vectors make equal files
        with replacing(self.path) as target, zipfile.ZipFile(target, "w") as archive:
            with archive.open(entry, "w", force_zip64=True) as packed, self._part.open("rb") as part:
                shutil.copyfileobj(part, packed)


def _header(form: str, rows: int, width: int) -> bytes:
    """The start of a file of float32 (rows, width): .npy format 1.0, or safetensors; both may be filled up with spaces."""
    if form == ".jsonl":
        return b""
    if form == ".safetensors":
        tensor = {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, 4 * rows * width]}
        text = json.dumps({TENSOR_NAME: tensor}, separators=(",", ":")).encode()
        return (HEADER_LENGTH - 8).to_bytes(8, "little") + text.ljust(HEADER_LENGTH - 8)
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}".encode()
    return b"\x93NUMPY\x01\x00" + (HEADER_LENGTH - 10).to_bytes(2, "little") + text.ljust(HEADER_LENGTH - 11) + b"\n"
