"""Where the training data are: a folder laid out like kakaobrain/kor-nlu-datasets, or a download of its pinned commit.

Every downloaded file is checked against the hash that git gives it, is written under its name only when it is whole, and is
not fetched again. A broken download goes on where it stopped.
"""

import functools
import http.client
import ssl
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from minisbert.errors import HubError, InputError
from minisbert.files import file_hash, flush_to_disk
from minisbert.text.rows import BadRow
from minisbert.training.examples import Example, nli_triplets, read_nli

REPOSITORY = "https://raw.githubusercontent.com/kakaobrain/kor-nlu-datasets"
COMMIT = "0df0fe7d496eb61b092e022e238c2230b29f1cbc"
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5
PAUSE = 1.0  # seconds after the first failure, twice as long after each further one
BLOCK = 1 << 16  # bytes
BROKEN_CONNECTION = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError, EOFError)


class CorpusFile(NamedTuple):
    """A file of the repository, with its git blob hash."""

    path: str
    sha1: str


NLI_TRAIN = (
    CorpusFile("KorNLI/snli_1.0_train.ko.tsv", "c91761e52fca2a7420104589811346986ce94073"),
    CorpusFile("KorNLI/multinli.train.ko.tsv", "94d26a9d0dd045928148ef8691a256bd0e7d45c3"),
)
NLI_SMALL = (
    CorpusFile("KorNLI/xnli.dev.ko.tsv", "21305150d466aa35d42b14e1890b7dcd58084634"),
    CorpusFile("KorNLI/xnli.test.ko.tsv", "89a0b11bffa775fafd88178b3980a1fe2d8aee52"),
)
STS_TRAIN = CorpusFile("KorSTS/sts-train.tsv", "91fc16190dd0102a3cad2f0abf83317703438869")
STS_DEV = CorpusFile("KorSTS/sts-dev.tsv", "3686d9394fa63bcfd6b1bc7c70a60b1dfe08d388")
STS_TEST = CorpusFile("KorSTS/sts-test.tsv", "d2a7c958d520ed84402c0042142a60d9a18ee3e4")


def find_kor_nlu(folder: Path) -> Path:
    """The folder with KorNLI and KorSTS in it: `folder` itself, or kor-nlu-datasets inside it; else an InputError."""
    for candidate in (folder, folder / "kor-nlu-datasets"):
        if (candidate / "KorSTS").is_dir():
            return candidate
    raise InputError(f"{folder}: no KorSTS folder in it; expected the layout of kakaobrain/kor-nlu-datasets")


def load_nli(folder: Path, seed: int, on_bad_row: BadRow | None) -> tuple[list[Example], list[Path]]:
    """KorNLI triplets, and the files they come from; see `examples.nli_triplets`.

    Unless both large training files are there, the small development and test files of KorNLI are taken, with a warning:
    enough to try a recipe, not to reproduce a model. If there are none, that is an InputError.
    """
    paths = [folder / file.path for file in NLI_TRAIN]
    if missing := ", ".join(path.name for path in paths if not path.exists()):
        paths = [folder / file.path for file in NLI_SMALL if (folder / file.path).exists()]
        if not paths:
            raise InputError(f"{folder / 'KorNLI'}: {missing} not found; leave out --data to download")
        taken = ", ".join(path.name for path in paths)
        warnings.warn(f"{missing} not found; training on {taken} instead, which are far smaller", stacklevel=2)
    return nli_triplets((pair for path in paths for pair in read_nli(path, on_bad_row)), seed), paths


def download(
    files: Sequence[CorpusFile], folder: Path, on_bytes: Callable[[str, int, int], None], repository: str = REPOSITORY
) -> None:
    """Fetch what is not in `folder` yet; a HubError if a file cannot be had, or is not the one that git knows.

    `on_bytes` gets a file's path, the bytes there are and the bytes there will be (0 if not known); `repository` is the
    address before the commit.
    """
    for file in files:
        target = folder / file.path
        if target.exists() and file_hash(target, "git") == file.sha1:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch(f"{repository}/{COMMIT}/{file.path}", part, functools.partial(on_bytes, file.path))
                break
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == ATTEMPTS:
                    advice = f"the server answers {error.code}; download it by hand, use --data"
                    raise HubError(f"{file.path}: {advice}") from None
            except BROKEN_CONNECTION:
                if attempt == ATTEMPTS:
                    advice = "cannot be downloaded; see to the network, or use --data DIR"
                    raise HubError(f"{file.path}: {advice}") from None
            time.sleep(PAUSE * 2 ** (attempt - 1))
        if file_hash(part, "git") != file.sha1:
            part.unlink()
            problem = f"what was downloaded is not the file of commit {COMMIT} (wrong hash)"
            raise HubError(f"{file.path}: {problem}; try again")
        part.replace(target)


def _fetch(address: str, part: Path, on_bytes: Callable[[int, int], None]) -> None:
    """Download to `part`, going on after what is there already."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is left to send
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        have = file.tell()
        announced = answer.headers.get("Content-Length")
        length = have + int(announced) if announced else 0
        while block := answer.read(BLOCK):
            have += file.write(block)
            on_bytes(have, length)
        flush_to_disk(file)
    if have < length:
        raise EOFError("the connection was closed too early")
