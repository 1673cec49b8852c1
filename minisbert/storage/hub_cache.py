"""The cache of the Hugging Face Hub on this machine: what is in it, and whether it is whole. Nothing here opens a connection.

The client keeps the cache, whose layout it documents and other programs share:

    models--owner--name/
        refs/main                         the commit that a branch or tag stood for when the Hub was last asked
        snapshots/<commit>/config.json    a link to ../../blobs/<hash>; where links are not possible, the file itself
        blobs/<hash>                      the contents, named by their SHA-256 (large files) or git's SHA-1 (small ones)
        .minisbert/<commit>.json          ours: the files of a whole snapshot, each with hash, size and time of change

A file is compared with its hash when it arrives and again before every use, except that a large one is not read again
while its size and time of change are those of the last comparison: reading 440 MB takes a second, noticing that they
changed takes none.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from minisbert.errors import HubError, ModelError
from minisbert.files import file_hash, read_json_object, replacing, write_json
from minisbert.storage.folder import ADAPTER, CONFIG, MODULES, SENTENCE_CONFIGS, SENTENCE_TRANSFORMERS_CONFIG, TOKENIZER_FILES
from minisbert.storage.weights import PYTORCH_BIN, SAFETENSORS, SAFETENSORS_INDEX, read_shard_index

SMALL_FILES = (CONFIG, ADAPTER, MODULES, SENTENCE_TRANSFORMERS_CONFIG, *SENTENCE_CONFIGS, *TOKENIZER_FILES)
MODULE_CONFIG = re.compile(r"\d_[A-Za-z]+/config\.json")  # 1_Pooling/config.json
LARGE = 32 * 2**20  # bytes; smaller files are hashed before every use
COMMIT = re.compile(r"[0-9a-f]{40}")  # a revision that cannot move
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # SHA-1 or SHA-256


class Snapshot:
    """The files of one commit in the cache, and what is known about them."""

    def __init__(self, cache: Path, commit: str | None) -> None:
        self.cache = cache
        self.folder = cache / "snapshots" / (commit or "none")
        self.record_path = cache / ".minisbert" / f"{commit}.json"
        self.recorded: dict[str, Any] = {}  # file -> [hash, size, time of change]; empty for what others downloaded
        with contextlib.suppress(ModelError):  # not there or damaged
            self.recorded = read_json_object(self.record_path)
        self.checked: dict[str, list[Any]] = {}  # the same, of the files compared with their hashes since

    def is_complete(self) -> bool:
        """Whether the Hub need not be asked for more; nothing is compared with its hash.

        Other programs fetch the weights without modules.json, which says how to pool.
        """
        return self.missing_file() is None and (bool(self.recorded) or (self.folder / MODULES).is_file())

    def problem(self) -> str | None:
        """Why the model cannot be loaded from here, or None; every file is compared with its hash."""
        if not self.folder.is_dir():
            return "not in the local cache"
        missing = self.missing_file()
        if missing is not None:
            return f"incomplete in the local cache ({missing} is missing)"
        for file in files_to_read(self.files(), self.folder):
            if not self.is_intact(file):
                return f"damaged in the local cache ({file} has changed)"
        if self.is_complete():
            self.save_record()
        return None

    def files(self) -> list[str]:
        """The names of all files, as they are in the repository."""
        paths = filter(Path.is_file, sorted(self.folder.rglob("*")))
        return [path.relative_to(self.folder).as_posix() for path in paths]

    def missing_file(self) -> str | None:
        """The name of a file without which the model cannot be loaded, or None."""
        files = self.files()
        if CONFIG not in files:
            return CONFIG
        if "tokenizer.json" not in files and "vocab.txt" not in files:
            return "tokenizer.json"
        if MODULES in files and not any(file.endswith("_Pooling/config.json") for file in files):
            return "1_Pooling/config.json"
        if not {SAFETENSORS, SAFETENSORS_INDEX, PYTORCH_BIN} & set(files):
            return SAFETENSORS
        try:
            needed = [*self.recorded, *files_to_read(files, self.folder)]
        except ModelError:  # a damaged index is as good as none
            return SAFETENSORS_INDEX
        return next((file for file in needed if file not in files), None)

    def is_intact(self, file: str, expected: str | None = None) -> bool:
        """Whether the contents of a file match its hash: the expected one, or what the record or the blob's name says.

        If nobody knows it (a cache without links that others filled), the file counts as intact.
        """
        path = self.folder / file
        known = self.recorded.get(file)
        if expected is None and known:
            expected = known[0]
        if expected is None and path.is_symlink():
            expected = _blob(path).name
        status = path.stat()
        stamp = [expected, status.st_size, status.st_mtime_ns]
        if not (known == stamp and status.st_size >= LARGE) and not _has_hash(path, expected):
            return False
        self.checked[file] = stamp
        return True

    def remove(self, file: str) -> None:
        """Take a file with wrong contents out of the cache, so that nobody uses it."""
        path = self.folder / file
        try:
            if path.is_symlink() and not self.leads_out(file):
                _blob(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HubError(f"{path}: damaged, and cannot be replaced ({error.strerror}); delete it") from None

    def leads_out(self, file: str) -> bool:
        """Whether a file is a link to somewhere else than to a blob of this cache: the server names the blobs."""
        path = self.folder / file
        return path.is_symlink() and _blob(path).parent != Path(os.path.normpath(self.cache / "blobs"))

    def save_record(self) -> None:
        """Remember what was compared, for the next time."""
        if self.checked != self.recorded:
            with contextlib.suppress(OSError):  # a read-only cache: the next time will take as long
                self.record_path.parent.mkdir(exist_ok=True)
                write_json(self.record_path, self.checked)


def _blob(link: Path) -> Path:
    """What a link in a snapshot stands for; the first link only: a blob may be a link itself."""
    return Path(os.path.normpath(link.parent / os.readlink(link)))


def files_to_read(available: Iterable[str], folder: Path) -> Iterator[str]:
    """Of the files of a repository, those that will be read; of several forms of weights only one.

    An index of shards is looked into when its name has been taken, so that there is time to fetch it into the folder.
    Shards that it names are yielded even if they are not available.
    """
    files = list(available)
    yield from (file for file in files if file in SMALL_FILES or MODULE_CONFIG.fullmatch(file))
    weights = next((file for file in (SAFETENSORS, SAFETENSORS_INDEX, PYTORCH_BIN) if file in files), None)
    if weights is not None:
        yield weights
    if weights == SAFETENSORS_INDEX:
        yield from sorted(set(read_shard_index(folder / weights).values()))


def read_commit(cache: Path, revision: str) -> str | None:
    """The commit that a revision stood for when the Hub was last asked."""
    if COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (cache / "refs" / revision).read_text(errors="replace").strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def write_commit(cache: Path, revision: str, commit: str) -> None:
    """Note which commit a revision stands for now."""
    if read_commit(cache, revision) != commit:
        path = cache / "refs" / revision
        with contextlib.suppress(OSError):  # a read-only cache that holds everything
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(commit.encode())


def _has_hash(path: Path, expected: str | None) -> bool:
    """Whether a file has this SHA-256 or SHA-1; True if `expected` is no hash at all."""
    if expected is None or not HASH.fullmatch(expected):
        return True
    if len(expected) == 64:
        return file_hash(path, "sha256") == expected
    # Git's is the rule; some mirrors name files by the SHA-1 of the contents alone.
    return file_hash(path, "git") == expected or file_hash(path, "sha1") == expected
