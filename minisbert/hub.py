"""From "owner/name" or "owner/name@revision" to a local folder: the only file that touches the network.

The Hugging Face client does the transfers and keeps the cache. Added here: the choice of files (one form of the
weights, no code), retries with a bound, a check of every downloaded file against its hash, a check that nothing
needed is missing, and messages of one line. The client is imported when it is needed: a local folder is loaded
without it.
"""

import errno
import hashlib
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from minisbert.checkpoint import PYTORCH_BIN, SAFETENSORS, SAFETENSORS_INDEX
from minisbert.errors import HubError, ModelError
from minisbert.files import read_json_object
from minisbert.folder import CONFIG, MODULES, SENTENCE_CONFIGS, SENTENCE_TRANSFORMERS_CONFIG, TOKENIZER_FILES

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

SMALL_FILES = (CONFIG, MODULES, SENTENCE_TRANSFORMERS_CONFIG, *SENTENCE_CONFIGS, *TOKENIZER_FILES)
DEADLINE = 600.0  # seconds after which no request of one model is tried again
ATTEMPTS = 6
FIRST_PAUSE = 0.5  # seconds before the second attempt; doubled before each later one
LOCAL_FAULTS = (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT)

HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")  # a revision that cannot move

Result = TypeVar("Result")


def is_hub_name(source: str) -> bool:
    """Whether `source` has the form "owner/name" or "owner/name@revision"."""
    return HUB_NAME.fullmatch(source) is not None


def download(
    source: str, revision: str | None = None, token: str | bool | None = None, local_files_only: bool = False
) -> Path:
    """Make the files of a model available in the local cache.

    Args:
        source: "owner/name" or "owner/name@revision".
        revision: branch, tag or commit, if `source` names none; None = "main".
        token: for private and gated models; None = the one that the machine is logged in with.
        local_files_only: open no connection; so does the environment variable HF_HUB_OFFLINE=1.

    Returns:
        The folder of one snapshot in the cache.

    Raises:
        HubError: the model cannot be had; the message says which of the many reasons it is.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

    match = HUB_NAME.fullmatch(source)
    assert match is not None, "ask is_hub_name first"
    name = match[1]
    revision = revision or match[2] or "main"
    offline = local_files_only or constants.HF_HUB_OFFLINE
    cached = try_to_load_from_cache(name, CONFIG, revision=revision)
    if isinstance(cached, str) and (offline or COMMIT.fullmatch(revision)):
        missing = _first_missing_file(Path(cached).parent)
        if missing is None:
            return Path(cached).parent
        if offline:
            raise HubError(
                f"{name}@{revision}: incomplete in the local cache ({missing} is missing), and no connection is allowed"
            )
    elif offline:
        raise HubError(f"{name}@{revision}: not in the local cache, and no connection is allowed")

    deadline = time.monotonic() + DEADLINE
    api = HfApi()
    info = _retry(
        lambda: api.model_info(name, revision=revision, files_metadata=True, token=token),
        f"{name}@{revision}",
        deadline,
    )
    files = {file.rfilename: file for file in info.siblings or []}
    commit = info.sha
    if commit is None:
        raise HubError(f"{name}@{revision}: the server does not say which commit this is")

    def fetch(file: str) -> Path:
        where = f"{name}@{revision}: {file}"
        known = isinstance(try_to_load_from_cache(name, file, revision=commit), str)
        path = Path(_retry(lambda: hf_hub_download(name, file, revision=commit, token=token), where, deadline))
        if not known:
            _verify(path, files[file], where)
        return path

    wanted = [file for file in SMALL_FILES if file in files]
    wanted += [file for file in files if re.fullmatch(r"\d_[A-Za-z]+/config\.json", file)]
    folder = None
    for file in wanted:
        path = fetch(file)
        folder = path.parent if file == CONFIG else folder
    if folder is None:
        raise HubError(f"{name}@{revision}: the repository has no {CONFIG}: it holds no transformers model")
    for file in _weight_files(files, fetch):
        fetch(file)
    missing = _first_missing_file(folder)
    if missing is not None:
        raise HubError(f"{name}@{revision}: incomplete: the repository has no {missing}")
    return folder


def _weight_files(files: Iterable[str], fetch: Callable[[str], Path]) -> list[str]:
    """The one form of the weights that will be read: whole safetensors, safetensors in shards, or pytorch_model.bin."""
    available = set(files)
    if SAFETENSORS in available:
        return [SAFETENSORS]
    if SAFETENSORS_INDEX in available:
        return [shard for shard in _shards(fetch(SAFETENSORS_INDEX)) if shard in available]
    return [PYTORCH_BIN] if PYTORCH_BIN in available else []


def _shards(index: Path) -> list[str]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(f"{index}: expected a weight_map from tensor to file name")
    return sorted({str(shard) for shard in weight_map.values()})


def _first_missing_file(folder: Path) -> str | None:
    """The name of a file without which the model cannot be loaded, or None."""
    if not (folder / CONFIG).exists():
        return CONFIG
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        return "tokenizer.json"
    if (folder / MODULES).exists() and not any(folder.glob("*_Pooling/config.json")):
        return "1_Pooling/config.json"
    if not (folder / SAFETENSORS).exists() and (folder / SAFETENSORS_INDEX).exists():
        return next((shard for shard in _shards(folder / SAFETENSORS_INDEX) if not (folder / shard).exists()), None)
    if not any((folder / name).exists() for name in (SAFETENSORS, PYTORCH_BIN)):
        return SAFETENSORS
    return None


def _verify(path: Path, file: "RepoSibling", where: str) -> None:
    """Compare a downloaded file with the hash that the repository gives; a wrong one is removed from the cache."""
    if file.lfs is not None:
        expected, digest = file.lfs.sha256, hashlib.sha256()
    elif file.blob_id is not None:
        expected, digest = file.blob_id, hashlib.sha1(f"blob {path.stat().st_size}\0".encode())  # as git hashes a file
    else:
        return
    with path.open("rb") as data:
        for block in iter(lambda: data.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != expected:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise HubError(f"{where}: what was downloaded is not what the repository holds (wrong hash); try again")


def _retry(request: Callable[[], Result], where: str, deadline: float) -> Result:
    """Try a request until it succeeds, is refused for good, or the deadline or the number of attempts is reached."""
    from huggingface_hub import errors

    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return request()
        except errors.GatedRepoError:
            raise HubError(f"{where}: access is gated; accept its terms on the Hub and pass your token") from None
        except errors.RepositoryNotFoundError:
            raise HubError(f"{where}: no such model on the Hub, or it is private; check the name or log in") from None
        except errors.RevisionNotFoundError:
            raise HubError(f"{where}: the model exists, this revision does not") from None
        except errors.RemoteEntryNotFoundError:
            raise HubError(f"{where}: the repository lists this file but does not deliver it") from None
        except errors.HFValidationError:
            raise HubError(f"{where}: not a valid model name or revision") from None
        except (errors.HTTPError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise HubError(f"{where}: the token was refused; log in again or pass another") from None
            if isinstance(error, OSError) and error.errno in LOCAL_FAULTS:
                raise
            if attempt == ATTEMPTS or time.monotonic() + pause > deadline:
                reason = f"status {status}" if status else type(error).__name__
                raise HubError(f"{where}: the Hub cannot be reached ({reason} after {attempt} attempts)") from None
        time.sleep(pause)
        pause *= 2
    raise AssertionError("the last attempt returns or raises")
