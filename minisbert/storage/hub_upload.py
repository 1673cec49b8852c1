"""From a local folder to "owner/name" on the Hub. Only what was asked for is sent: of a folder, the files of its model.

Whoever may not write learns it from `prepare`, which can be called long before the upload.
"""

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from minisbert.errors import HubError, InputError
from minisbert.storage.hub import ANSWER_TIME, HUB_NAME, SLOWEST, Result, Unreachable, ask, check_token, quiet_client
from minisbert.storage.hub_cache import files_to_read


def check_name(name: str) -> None:
    """Raise what can be said without a connection: `InputError` for a bad name, `HubError` if none is allowed."""
    from huggingface_hub import constants

    match = HUB_NAME.fullmatch(name)
    if match is None or match[2] is not None:
        raise InputError(f"{name!r:.80} is not the name of a model on the Hub; expected OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{name}: nothing can be uploaded while HF_HUB_OFFLINE is set; unset it, or do without the upload")


def prepare(name: str, private: bool | None = None, revision: str | None = None, token: str | bool | None = None) -> str:
    """Make the repository and the branch `revision` if they are not there, and see that this token may write.

    Returns the address; see `upload` for the rest.
    """
    from huggingface_hub import HfApi

    check_name(name)
    check_token(token, name)
    api = HfApi(token=True if token is None else token)  # True: not without a token
    until = time.monotonic() + ANSWER_TIME
    address = _ask(lambda: api.create_repo(name, private=private, exist_ok=True), name, until)
    _ask(lambda: _check_rights(name, api.token), name, until)  # a repository that is there may be somebody else's
    if private and not _ask(lambda: api.model_info(name), name, until).private:
        warnings.warn(f"{name} is there already, and public: what is uploaded will be public", stacklevel=2)
    if revision is not None:
        _ask(lambda: api.create_branch(name, branch=revision, exist_ok=True), name, until)
    return str(address)


def upload(
    folder: Path,
    name: str,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    others: Sequence[str] = (),
) -> str:
    """Upload the model in `folder`.

    Args:
        folder: of a model, as `write_folder` leaves it.
        name: "owner/name" on the Hub.
        private: of a repository that is not there yet; None = what the Hub does by itself: public, in most cases.
        revision: a branch; None = "main".
        token: None = the one that the machine is logged in with.
        others: names of files to upload too, with * for any characters.

    Returns:
        The address of the model.

    Raises:
        InputError: `name` is none.
        HubError: no connection is allowed, the Hub cannot be reached, there is no token, or it gives no right to write.
    """
    from huggingface_hub import HfApi

    address = prepare(name, private, revision, token)
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = list(files_to_read(paths, folder))
    until = time.monotonic() + ANSWER_TIME + sum(paths[file].stat().st_size for file in files) / SLOWEST
    send = functools.partial(HfApi().upload_folder, repo_id=name, folder_path=folder, revision=revision, token=token)
    _ask(lambda: send(allow_patterns=[*files, *others]), name, until)
    return address


def _ask(request: Callable[[], Result], name: str, until: float) -> Result:
    """`hub.ask` with nothing on the screen: the client's bars would appear in files and pipes too."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with quiet_client():
            return ask(request, name, until)
    except Unreachable as error:
        raise HubError(f"{error}; check the network or try later") from None
    finally:
        if had_bars:
            enable_progress_bars()


def _check_rights(name: str, token: str | bool | None) -> None:
    """Ask the Hub whether the token gives the right to write; the client has a function for it only in later versions."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = f"{constants.ENDPOINT}/api/models/{name}/auth-check/write"
    hf_raise_for_status(get_session().get(url, headers=build_hf_headers(token=token)))
