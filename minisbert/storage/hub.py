"""From "owner/name" or "owner/name@revision" to a local folder. This file and hub_upload.py alone open connections.

The Hugging Face client does the transfers and keeps the cache (hub_cache.py). Added here: the choice of files (one form
of the weights, no code), requests that end, with an answer or with one line that says why there is none, and a check that
nothing is missing or other than the Hub lists it. Messages never contain the token. The client is imported when it is
needed: a local folder is loaded without it.
"""

import concurrent.futures
import contextlib
import errno
import functools
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from minisbert.errors import HubError, InputError
from minisbert.storage.folder import ADAPTER, CONFIG, MERGE_FIRST
from minisbert.storage.hub_cache import COMMIT, HASH, Snapshot, files_to_read, read_commit, write_commit

HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
TOKEN = re.compile(r"[!-~]+")  # what an HTTP header can hold; the client's own complaint would quote the token

ANSWER_TIME = 60.0  # seconds that a request may take with all its attempts, ...
SLOWEST = 100_000  # ... and one more for so many bytes
SILENCE = 10.0  # seconds without a byte after which an attempt to read the list of files has failed
ATTEMPTS = 5
FIRST_PAUSE = 0.5  # seconds before the second attempt; doubled before each later one

# Not the Hub's doing, and not mended by another attempt: disk full, no permission, a file where a folder should be.
LOCAL_FAULTS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
TRY_LATER = (408, 425, 429, 500, 502, 503, 504)  # the statuses that another attempt may mend
NO_HUB = "what answers is not a Hugging Face Hub; check the network and HF_ENDPOINT"
# Answers that will not change: the client's error, or the class that it is derived from, and what to tell the user.
REFUSALS = {
    "GatedRepoError": "access is gated; accept its terms on the Hub and pass your token",
    "RepositoryNotFoundError": "no such folder here; no such model on the Hub, or it is private; check the name or log in",
    "RevisionNotFoundError": "the model exists, this revision does not; check the branch, tag or commit",
    "RemoteEntryNotFoundError": "the repository lists this file but does not deliver it; try another revision",
    "DisabledRepoError": "the Hub has disabled this model; choose another",
    "HFValidationError": "not a valid model name or revision; expected owner/name",
    "LocalTokenNotFoundError": "a token is required, and this machine has none; log in with `hf auth login`",
    "UnicodeEncodeError": "the token has characters that no token has; copy it again",
    "FileMetadataError": "the server gives no commit or no hash (X-Repo-Commit, ETag); check HF_ENDPOINT",
}

Result = TypeVar("Result")


class Unreachable(HubError):
    """The Hub does not answer, or not in time: a copy in the cache may stand in."""


def local_folder(
    source: str | os.PathLike[str],
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    timeout: float | None = None,
) -> Path:
    """The folder that `source` means: an existing path, which is never looked up on the Hub, or a copy of a model there.

    A commit (40 hexadecimal digits) that is in the local cache is used without a request. A branch or tag is looked up;
    if the Hub cannot be reached, the copy in the cache is used with a warning. The arguments are those of
    `SentenceEncoder.from_pretrained`; `timeout` is its `hub_timeout`, and HF_HUB_OFFLINE=1 in the environment counts as
    `local_files_only`. A HubError says why the model cannot be had.
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
    check_token(token, f"{name}@{revision}")
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
    try:
        with quiet_client():
            return _fetch(name, revision, cache, token, deadline, attempts)
    except Unreachable as error:
        problem = cached.problem()
        if problem is not None:
            raise HubError(f"{error}, and the model is {problem}; check the network or try later") from None
        warnings.warn(f"{error}; the copy in the local cache is used", stacklevel=4)
        return cached.folder


def check_token(token: str | bool | None, where: str) -> None:
    """Refuse a token that no header can carry."""
    if isinstance(token, str) and not TOKEN.fullmatch(token):
        raise HubError(f"{where}: the token is empty or has characters that no token has; copy it again")


@contextlib.contextmanager
def quiet_client() -> Iterator[None]:
    """Keep the client from writing lines of its own about each attempt."""
    client_log = logging.getLogger("huggingface_hub")
    level = client_log.level
    client_log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        client_log.setLevel(level)


def _fetch(name: str, revision: str, cache: Path, token: str | bool | None, deadline: float, attempts: int) -> Path:
    """Ask which files the revision has, fetch those that are needed and not yet in the cache, and check them."""
    from huggingface_hub import hf_hub_download

    where = f"{name}@{revision}"
    commit, listed = _list_files(name, revision, token, min(deadline, time.monotonic() + ANSWER_TIME), attempts)
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
    if ADAPTER in listed:
        raise HubError(f"{where}: {MERGE_FIRST}")
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
            known = digest if HASH.fullmatch(digest or "") else None
            listed[file.rfilename] = known, ANSWER_TIME + (file.size or 0) / SLOWEST
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


def ask(request: Callable[[], Result], where: str, until: float, attempts: int = ATTEMPTS) -> Result:
    """Make a request of the client until it succeeds, is refused, or has no attempts or time (monotonic clock) left.

    The client alone does not repeat all that a second attempt would mend, and explains itself in several lines. Here its
    errors become `Unreachable` or, if the Hub refuses, `HubError`; those of this machine's disk stay what they are.
    """
    from huggingface_hub import errors

    for attempt in range(1, attempts + 1):
        pause = FIRST_PAUSE * 2 ** (attempt - 1)
        try:
            return _in_time(request, where, until)
        except (HubError, MemoryError, ImportError):  # HubError: out of time
            raise
        except Exception as raised:  # the client, and what it transfers with, raise all kinds
            # When a forced download fails, the client hides the reason behind a ValueError.
            hidden = isinstance(raised, ValueError) and isinstance(raised.__cause__, OSError | errors.HTTPError)
            error = raised.__cause__ if hidden and raised.__cause__ else raised
            if isinstance(error, OSError) and error.errno in LOCAL_FAULTS:
                raise
            refusal = _refusal(error)
            if refusal is not None:
                raise HubError(f"{where}: {refusal}") from None
            # The client has tried long enough itself before it raises LocalEntryNotFoundError.
            hopeless = isinstance(error, errors.LocalEntryNotFoundError)
            if hopeless or attempt == attempts or time.monotonic() + pause >= until:
                status = _status(error)
                # The text of the error may hold addresses and several lines; its type says enough.
                reason = type(error.__cause__ or error).__name__ if status is None else f"status {status}"
                raise Unreachable(f"{where}: the Hub cannot be reached ({reason})") from None
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _in_time(request: Callable[[], Result], where: str, until: float) -> Result:
    """Wait for a request, but no longer than `until`.

    The client's own timeouts are for single packets. They do not end a server that sends a byte now and then, or one
    that asks to be tried again in an hour. So the request runs in a thread of its own, which is left behind if it is
    late; it does not keep the program from ending.
    """
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(request())
        except BaseException as error:  # raised again below, where the result is wanted
            future.set_exception(error)

    seconds = min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX)
    threading.Thread(target=run, daemon=True).start()
    concurrent.futures.wait([future], timeout=seconds)
    if not future.done():
        raise Unreachable(f"{where}: the Hub cannot be reached (not done within {seconds:.0f} s)")
    return future.result()


def _refusal(error: BaseException) -> str | None:
    """What to tell the user about an answer that will not change; None if another attempt may succeed."""
    from huggingface_hub import errors

    kinds = [kind.__name__ for each in (error, error.__cause__) for kind in type(each).__mro__]
    known = next((REFUSALS[kind] for kind in kinds if kind in REFUSALS), None)
    if known is not None:
        return known
    if isinstance(error, RecursionError) or not isinstance(error, errors.HTTPError | OSError | RuntimeError):
        return NO_HUB
    status = _status(error)
    if status == 401:
        return "the token was refused; log in again or pass another"
    if status == 403:
        return "your token has no right to this; check the owner's name, or pass a token that has the right"
    if status is not None and 400 <= status < 500 and status not in TRY_LATER:
        return f"the Hub refuses the request (status {status})"
    return None


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the client, or behind what caused it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return _status(error.__cause__) if status is None and error is not None else status
