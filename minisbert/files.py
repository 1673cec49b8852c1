"""Files: strict JSON in, hashes, whole files out.

A file is written under a temporary name beside its final one, brought to the disk and renamed, so that nothing
half-written is ever seen under the final name and what stood there before survives every failure.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from minisbert.errors import ModelError

BLOCK = 1 << 20  # bytes of a file that are hashed at a time
LARGEST_JSON = 16 * 2**20  # bytes; a config.json has some hundred
# A name that stays inside its folder on every system: no separator, no drive, no "..", short.
PLAIN_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


def parse_json(data: bytes, where: str) -> Any:
    """Parse JSON strictly: UTF-8, no duplicate keys, no NaN, no numbers out of range, no half characters.

    Anything else is a `ModelError`, whose message begins with `where`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key {twice!r:.80} occurs twice")
        return fields

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number:.40} is too large or not a number")
        return value

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
        if b"\\ud" in data.lower():  # perhaps half of a surrogate pair, which cannot be encoded again
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError) as error:  # ValueError: bad UTF-8 and syntax, and all of the above
        raise ModelError(f"{where}: not valid JSON: {error!s:.200}") from None


def parse_json_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse JSON as `parse_json` does; whatever is not an object {...} is a `ModelError` too."""
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise ModelError(f"{where}: expected a JSON object {{...}}, found {type(value).__name__}")
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model folder; see `parse_json_object`."""
    return parse_json_object(read_small_file(path, LARGEST_JSON), str(path))


def read_small_file(path: Path, largest: int) -> bytes:
    """Read a file of a model folder; ModelError if it cannot be read, or has more than `largest` bytes."""
    refuse_pointer(path)
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ModelError(f"{path}: larger than {largest} bytes, which no such file is")
    return data


def refuse_pointer(path: Path) -> None:
    """Raise ModelError if a file of a model folder cannot be read, or is the few lines that git-lfs leaves in its place."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path}: a git-lfs pointer, not the file itself; run `git lfs pull`")


def file_hash(path: Path, algorithm: Literal["sha256", "sha1", "git"]) -> str:
    r"""The hash of a file's contents, in hexadecimal digits.

    "git" is what git names a file by, the SHA-1 of b"blob <size>\0" and the contents after it.
    """
    digest = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1()
    with path.open("rb") as file:
        if algorithm == "git":
            digest.update(f"blob {os.fstat(file.fileno()).st_size}\0".encode())
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON, Hangul as Hangul, all or nothing; OSError if it cannot be written."""
    with replacing(path) as file:
        file.write((json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing that takes the place of `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            flush_to_disk(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def flush_to_disk(file: BinaryIO) -> None:
    """Return when what was written to `file` would survive a loss of power."""
    file.flush()
    os.fsync(file.fileno())
