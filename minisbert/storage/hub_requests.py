"""Requests to the Hugging Face Hub that end: with an answer, or with one line that says why there is none.

The client alone can wait for hours, does not repeat all that a second attempt would mend, and explains itself in several
lines. It is imported when it is needed: a local folder is loaded without it.
"""

import concurrent.futures
import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from minisbert.errors import HubError

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


def ask(request: Callable[[], Result], where: str, until: float, attempts: int = ATTEMPTS) -> Result:
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
    if status in (401, 403):
        return "the token was refused; log in again or pass another"
    if status is not None and 400 <= status < 500 and status not in TRY_LATER:
        return f"the Hub refuses the request (status {status})"
    return None


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the client, or behind what caused it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return _status(error.__cause__) if status is None and error is not None else status
