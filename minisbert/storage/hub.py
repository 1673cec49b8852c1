"""From "owner/name" or "owner/name@revision" to a local folder: the only file that fetches models.

The Hugging Face client does the transfers and keeps the cache (hub_cache.py). Added here: the choice of files (one form
of the weights, no code), requests that end (hub_requests.py), and a check that nothing is missing or other than the Hub
lists it. Messages have one line and never contain the token.
"""

import contextlib
import functools
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from minisbert.errors import HubError, InputError
from minisbert.storage.folder import CONFIG
from minisbert.storage.hub_cache import COMMIT, HASH, Snapshot, files_to_read, read_commit, write_commit
from minisbert.storage.hub_requests import ATTEMPTS, NO_HUB, Unreachable, ask

ANSWER_TIME = 60.0  # seconds that a request may take with all its attempts, ...
SLOWEST = 100_000  # ... and one more for so many bytes
SILENCE = 10.0  # seconds without a byte after which an attempt to read the list of files has failed

HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
TOKEN = re.compile(r"[!-~]+")  # what an HTTP header can hold; the client's own complaint would quote the token


def is_hub_name(source: str) -> bool:
    """Whether `source` has the form "owner/name" or "owner/name@revision"."""
    return HUB_NAME.fullmatch(source) is not None


def local_folder(
    source: str | os.PathLike[str],
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    timeout: float | None = None,
) -> Path:
    """The folder that `source` means: an existing path, which is never looked up on the Hub, or a copy of a model there.

    A commit (40 hexadecimal digits) that is in the local cache is used without a request. A branch or tag is looked up;
    if the Hub cannot be reached, the copy in the cache is used with a warning.

    Args:
        source: a path, "owner/name" or "owner/name@revision".
        revision: branch, tag or commit, if `source` names none; None = "main".
        token: for private and gated models; None = the one that the machine is logged in with.
        local_files_only: open no connection; so does the environment variable HF_HUB_OFFLINE=1.
        timeout: seconds for everything together; None = a minute for each request, and more for large files.

    Returns:
        The path itself, or the folder of one snapshot in the cache.

    Raises:
        HubError: the model cannot be had; the message says which of the many reasons it is.
        InputError: `source` and `revision` name two revisions, or `source` is a folder, which has none.
    """
    path = Path(source)
    match = HUB_NAME.fullmatch(source) if isinstance(source, str) and not path.exists() else None
    if match is None:
        if revision is not None:
            raise InputError(f"{path}: a folder has no revisions; revision {revision!r} is for models on the Hub")
        return path
    name, named_revision = match.groups()
    if revision and named_revision and revision != named_revision:
        raise InputError(f"{name}: two revisions, {named_revision} and {revision}; give one")
    revision = revision or named_revision or "main"
    if not (_stays_inside(revision) and revision.isprintable()):
        raise HubError(f"{name}: {revision!r:.80} is not a valid revision; give a branch, a tag or a commit")
    if isinstance(token, str) and not TOKEN.fullmatch(token):
        raise HubError(f"{name}@{revision}: the token is empty or has characters that no token has; copy it again")
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    return _cached_or_fetched(name, revision, token, local_files_only, deadline)


def _cached_or_fetched(name: str, revision: str, token: str | bool | None, offline: bool, deadline: float) -> Path:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    offline = offline or constants.HF_HUB_OFFLINE
    cached = Snapshot(cache, read_commit(cache, revision))
    if offline or (COMMIT.fullmatch(revision) and cached.is_complete()):
        problem = cached.problem()
        if problem is None:
            return cached.folder
        if offline:
            raise HubError(f"{name}@{revision}: {problem}, and no connection is allowed; run once with one")
    attempts = ATTEMPTS if cached.missing_file() else 1
    client_log = logging.getLogger("huggingface_hub")
    try:
        with contextlib.ExitStack() as afterwards:
            afterwards.callback(client_log.setLevel, client_log.level)
            client_log.setLevel(logging.CRITICAL)  # it would write lines of its own about each attempt
            return _fetch(name, revision, cache, token, deadline, attempts)
    except Unreachable as error:
        problem = cached.problem()
        if problem is not None:
            raise HubError(f"{error}, and the model is {problem}; check the network or try later") from None
        warnings.warn(f"{error}; the copy in the local cache is used", stacklevel=4)
        return cached.folder


def _fetch(name: str, revision: str, cache: Path, token: str | bool | None, deadline: float, attempts: int) -> Path:
    """Ask which files the revision has, fetch those that are needed and not yet in the cache, and check them."""
    from huggingface_hub import hf_hub_download

    where = f"{name}@{revision}"
    until = min(deadline, time.monotonic() + ANSWER_TIME)
    commit, listed = _list_files(name, revision, token, until, attempts)
    snapshot = Snapshot(cache, commit)
    download = functools.partial(hf_hub_download, name, revision=commit, token=token)

    def fetch(file: str) -> None:
        path = snapshot.folder / file
        expected, seconds = listed[file]
        # Twice, because what is wrong may have been lying in the cache.
        for again in (False, True):
            if not path.is_file():
                until = min(deadline, time.monotonic() + seconds)
                with _no_partial_file(cache, expected):
                    ask(functools.partial(download, file, force_download=again), f"{where}: {file}", until)
                if snapshot.leads_out(file):
                    snapshot.remove(file)
                    raise HubError(f"{where}: {file}: the server's ETag leads out of the cache; do not use this server")
            if not path.is_file():
                raise HubError(f"{where}: {file}: the server delivers another commit than it was asked for")
            if snapshot.is_intact(file, expected):
                return
            snapshot.remove(file)
        raise HubError(f"{where}: {file}: what was delivered is not what the repository holds (wrong hash); try again")

    for file in files_to_read(listed, snapshot.folder):
        if file in listed:
            fetch(file)
    missing = snapshot.missing_file()
    if missing == CONFIG:
        raise HubError(f"{where}: the repository has no {CONFIG}: it holds no transformers model")
    if missing is not None:
        raise HubError(f"{where}: incomplete: the repository has no {missing}")
    snapshot.save_record()
    write_commit(cache, revision, commit)  # last, so that until now the older snapshot was there to be used
    return snapshot.folder


def _list_files(
    name: str, revision: str, token: str | bool | None, until: float, attempts: int
) -> tuple[str, dict[str, tuple[str | None, float]]]:
    """The commit that a revision stands for; its files, each with its hash and the seconds that fetching it may take."""
    from huggingface_hub import HfApi

    where = f"{name}@{revision}"
    request = functools.partial(HfApi().model_info, name, revision=revision, files_metadata=True, token=token)
    try:
        info = ask(functools.partial(request, timeout=SILENCE), where, until, attempts)
        commit = info.sha or ""
        listed = {}
        for file in info.siblings or []:
            digest = file.blob_id if file.lfs is None else file.lfs.sha256
            known = isinstance(digest, str) and HASH.fullmatch(digest)
            listed[file.rfilename] = digest if known else None, ANSWER_TIME + (file.size or 0) / SLOWEST
        outside = next((file for file in listed if not _stays_inside(file)), None)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):  # not JSON, or JSON of another form
        raise HubError(f"{where}: {NO_HUB}") from None
    if outside is not None:
        raise HubError(f"{where}: the repository lists {outside!r:.80}, which is not inside it; do not use it")
    if not COMMIT.fullmatch(commit):
        raise HubError(f"{where}: the server does not say which commit this is; check HF_ENDPOINT")
    return commit, listed


def _stays_inside(name: str) -> bool:
    r"""Whether a relative path, read on any system, leads to something below where it starts.

    >>> [_stays_inside(name) for name in ("1_Pooling/config.json", "a/../../evil", "/etc/passwd", "C:evil", r"..\evil")]
    [True, False, False, False, False]
    """
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not re.match("[A-Za-z]:", name)


@contextlib.contextmanager
def _no_partial_file(cache: Path, expected: str | None) -> Iterator[None]:
    """Remove what the client has written of a file if the block ends early: a thread left behind will not do it."""
    pattern = f"{expected}.*.incomplete"
    before = set((cache / "blobs").glob(pattern))
    try:
        yield
    except BaseException:
        for partial in set((cache / "blobs").glob(pattern)) - before:
            with contextlib.suppress(OSError):
                partial.unlink()
        raise
