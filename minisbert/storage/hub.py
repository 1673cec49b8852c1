"""From "owner/name" or "owner/name@revision" to a local folder: the only file that fetches models.

The Hugging Face client does the transfers and keeps the cache (hub_cache.py). Added here: the choice of files (one form
of the weights, no code); bounds in time, because the client alone can wait for hours; repetition of what it does not
repeat; and a check that nothing is missing or other than the Hub lists it. Messages have one line and never contain the
token. The client is imported when it is needed: a local folder is loaded without it.
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
from typing import TYPE_CHECKING, TypeVar

from minisbert.errors import HubError, InputError
from minisbert.storage.folder import CONFIG
from minisbert.storage.hub_answers import NO_HUB, reason_of, refusal_of
from minisbert.storage.hub_cache import COMMIT, HASH, Snapshot, files_to_read, read_commit, write_commit

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

ATTEMPTS = 5
FIRST_PAUSE = 0.5  # seconds before the second attempt; doubled before each later one
ANSWER_TIME = 60.0  # seconds that a request may take with all its attempts, ...
SLOWEST = 100_000  # ... and one more for so many bytes
SILENCE = 10.0  # seconds without a byte after which an attempt to read the list of files has failed

# Not the Hub's doing, and not mended by another attempt: disk full, no permission, a file where a folder should be.
LOCAL_FAULTS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)

HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
TOKEN = re.compile(r"[!-~]+")  # what an HTTP header can carry; the client's own complaint would quote the token

Result = TypeVar("Result")


class Unreachable(HubError):
    """The Hub does not answer, or not in time: a copy in the cache may stand in."""


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
    """The folder that `source` means: an existing path is never looked up on the Hub. Arguments and errors: `download`."""
    path = Path(source)
    if path.exists() or not isinstance(source, str) or not is_hub_name(source):
        if revision is not None:
            raise InputError(f"{path}: a folder has no revisions; revision {revision!r} is for models on the Hub")
        return path
    return download(source, revision, token, local_files_only, timeout)


def download(
    source: str,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    timeout: float | None = None,
) -> Path:
    """Make the files of a model available in the local cache.

    A commit (40 hexadecimal digits) that is in the cache is used without a request. A branch or tag is looked up; if
    the Hub cannot be reached, the copy in the cache is used with a warning.

    Args:
        source: "owner/name" or "owner/name@revision".
        revision: branch, tag or commit, if `source` names none; None = "main".
        token: for private and gated models; None = the one that the machine is logged in with.
        local_files_only: open no connection; so does the environment variable HF_HUB_OFFLINE=1.
        timeout: seconds for everything together; None = a minute for each request, and more for large files.

    Returns:
        The folder of one snapshot in the cache.

    Raises:
        HubError: the model cannot be had; the message says which of the many reasons it is.
        InputError: `source` and `revision` name two revisions.
    """
    from huggingface_hub import constants

    match = HUB_NAME.fullmatch(source)
    assert match is not None, "ask is_hub_name first"
    name = match[1]
    if revision and match[2] and revision != match[2]:
        raise InputError(f"{name}: two revisions, {match[2]} and {revision}; give one")
    revision = revision or match[2] or "main"
    where = f"{name}@{revision}"
    if not (_stays_inside(revision) and revision.isprintable()):
        raise HubError(f"{name}: {revision!r:.80} is not a valid revision; give a branch, a tag or a commit")
    if isinstance(token, str) and not TOKEN.fullmatch(token):
        raise HubError(f"{where}: the token is empty or has characters that no token has; copy it again")

    cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    offline = local_files_only or constants.HF_HUB_OFFLINE
    cached = Snapshot(cache, read_commit(cache, revision))
    if offline or (COMMIT.fullmatch(revision) and cached.is_complete()):
        problem = cached.problem()
        if problem is None:
            return cached.folder
        if offline:
            raise HubError(f"{where}: {problem}, and no connection is allowed; run once with one")

    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    try:
        with _silent_client():
            return _download(name, revision, cache, token, deadline, attempts=1 if cached.has_all_files() else ATTEMPTS)
    except Unreachable as error:
        problem = cached.problem()
        if problem is not None:
            raise HubError(f"{error}, and the model is {problem}; check the network or try later") from None
        warnings.warn(f"{error}; the copy in the local cache is used", stacklevel=4)
        return cached.folder


def _download(name: str, revision: str, cache: Path, token: str | bool | None, deadline: float, attempts: int) -> Path:
    """Ask which files the revision has, fetch those that are needed and not yet in the cache, and check them."""
    from huggingface_hub import HfApi, hf_hub_download

    where = f"{name}@{revision}"

    def list_files() -> "ModelInfo":
        return HfApi().model_info(name, revision=revision, files_metadata=True, token=token, timeout=SILENCE)

    try:
        info = _ask(list_files, where, min(deadline, time.monotonic() + ANSWER_TIME), attempts)
        commit = info.sha or ""
        files = {file.rfilename: file for file in info.siblings or []}
        outside = [file for file in files if not _stays_inside(file)]
        seconds = {file: ANSWER_TIME + (entry.size or 0) / SLOWEST for file, entry in files.items()}
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):  # not JSON, or JSON of another form
        raise HubError(f"{where}: {NO_HUB}") from None
    if outside:
        raise HubError(f"{where}: the repository lists {outside[0]!r:.80}, which is not inside it; do not use it")
    if not COMMIT.fullmatch(commit):
        raise HubError(f"{where}: the server does not say which commit this is; check HF_ENDPOINT")

    snapshot = Snapshot(cache, commit)
    download_file = functools.partial(hf_hub_download, name, revision=commit, token=token)

    def fetch(file: str) -> Path:
        path, expected = snapshot.folder / file, _listed_hash(files[file])
        # Twice, because what is wrong may have been lying in the cache.
        for again in (False, True):
            if not path.is_file():
                until = min(deadline, time.monotonic() + seconds[file])
                request = functools.partial(download_file, file, force_download=again)
                with _no_partial_file(cache, expected):
                    _ask(request, f"{where}: {file}", until)
                if snapshot.leads_out(file):
                    snapshot.remove(file)
                    raise HubError(f"{where}: {file}: the server's ETag leads out of the cache; do not use this server")
            if not path.is_file():
                raise HubError(f"{where}: {file}: the server delivers another commit than it was asked for")
            if snapshot.is_intact(file, expected):
                return path
            snapshot.remove(file)
        raise HubError(f"{where}: {file}: what was delivered is not what the repository holds (wrong hash); try again")

    for file in files_to_read(files, fetch):
        fetch(file)
    missing = snapshot.first_missing_file()
    if missing == CONFIG:
        raise HubError(f"{where}: the repository has no {CONFIG}: it holds no transformers model")
    if missing is not None:
        raise HubError(f"{where}: incomplete: the repository has no {missing}")
    snapshot.save_record()
    write_commit(cache, revision, commit)  # last, so that until now the older snapshot was there to be used
    return snapshot.folder


def _stays_inside(name: str) -> bool:
    r"""Whether a relative path, read on any system, leads to something below where it starts.

    >>> [_stays_inside(name) for name in ("1_Pooling/config.json", "a/../../evil", "/etc/passwd", "C:evil", r"..\evil")]
    [True, False, False, False, False]
    """
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not re.match("[A-Za-z]:", name)


def _listed_hash(file: "RepoSibling") -> str | None:
    expected = file.blob_id if file.lfs is None else file.lfs.sha256
    return expected if isinstance(expected, str) and HASH.fullmatch(expected) else None


def _ask(request: Callable[[], Result], where: str, until: float, attempts: int = ATTEMPTS) -> Result:
    """Make a request until it succeeds, is refused, or there are no attempts or no time left.

    Args:
        request: calls the client.
        where: begins the message.
        until: end of the time, on the monotonic clock.
        attempts: how often to try.

    Raises:
        Unreachable: no attempt succeeded.
        HubError: the Hub refuses; it would do so again.
        OSError: the disk or the permissions on this machine are at fault.
    """
    from huggingface_hub import errors

    pause = FIRST_PAUSE
    for attempt in range(1, attempts + 1):
        try:
            return _in_time(request, where, until)
        except (HubError, MemoryError, ImportError):  # HubError: out of time
            raise
        except Exception as raised:  # the client, and what it transfers with, raise all kinds
            # When a forced download fails, the client hides the reason behind a ValueError.
            cause = raised.__cause__
            error = (
                cause if isinstance(raised, ValueError) and isinstance(cause, OSError | errors.HTTPError) else raised
            )
            if isinstance(error, OSError) and error.errno in LOCAL_FAULTS:
                raise
            refusal = refusal_of(error)
            if refusal is not None:
                raise HubError(f"{where}: {refusal}") from None
            # The client has tried long enough itself before it raises LocalEntryNotFoundError.
            hopeless = isinstance(error, errors.LocalEntryNotFoundError)
            if hopeless or attempt == attempts or time.monotonic() + pause >= until:
                raise Unreachable(f"{where}: the Hub cannot be reached ({reason_of(error)})") from None
        time.sleep(pause)
        pause *= 2
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

    start = time.monotonic()
    threading.Thread(target=run, daemon=True).start()
    seconds = min(max(0.0, until - start), threading.TIMEOUT_MAX)
    concurrent.futures.wait([future], timeout=seconds)
    if not future.done():
        raise Unreachable(f"{where}: the Hub cannot be reached (not done within {seconds:.0f} s)")
    return future.result()


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


@contextlib.contextmanager
def _silent_client() -> Iterator[None]:
    """Keep the client from writing its own lines about each attempt to standard error."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
