"""What the errors of the Hugging Face client mean: whether another attempt may succeed, and what to tell the user.

The client is imported when it is needed: a local folder is loaded without it.
"""

TRY_LATER = (408, 425, 429, 500, 502, 503, 504)  # the statuses that another attempt may mend
NO_HUB = "what answers is not a Hugging Face Hub; check the network and HF_ENDPOINT"


def refusal_of(error: Exception) -> str | None:
    """What to tell the user about an answer that will not change; None if another attempt may succeed."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # a subclass of the next one
        return "access is gated; accept its terms on the Hub and pass your token"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such folder here; no such model on the Hub, or it is private; check the name or log in"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the model exists, this revision does not; check the branch, tag or commit"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "the repository lists this file but does not deliver it; try another revision"
    if isinstance(error, errors.DisabledRepoError):
        return "the Hub has disabled this model; choose another"
    if isinstance(error, errors.HFValidationError):
        return "not a valid model name or revision; expected owner/name"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "a token is required, and this machine has none; log in with `hf auth login`"
    if isinstance(error, UnicodeEncodeError):
        return "the token has characters that no token has; copy it again"
    if isinstance(error.__cause__, errors.FileMetadataError):
        return "the server gives no commit or no hash (X-Repo-Commit, ETag); check HF_ENDPOINT"
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


def reason_of(error: Exception) -> str:
    """The kind of a failure that another attempt may mend, in a word or two."""
    # The text of the error may hold addresses and several lines; its type says enough.
    status = _status(error)
    return f"status {status}" if status is not None else type(error.__cause__ or error).__name__
