"""The folder of a sentence-embedding model: what its small files say, and how to write them.

    config.json                          the encoder (transformers)
    model.safetensors ...                its weights: weights.py
    tokenizer.json, vocab.txt ...        its tokenizer: text/tokenizer_files.py
    modules.json                         the chain: encoder, pooling, perhaps normalisation
    1_Pooling/config.json                how token vectors become a text vector
    sentence_bert_config.json            the longest text
    config_sentence_transformers.json    prompts, similarity function

Both layouts of sentence-transformers are read: the legacy one (2.x to 5.x), and that of 6.x. The legacy layout is
written, because every reader opens it. A folder without modules.json is a plain transformers model: mean pooling is
assumed. Types and paths in these files are compared with known names, never imported or followed out of the folder.
"""

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minisbert.errors import ModelError
from minisbert.files import (
    LARGEST_JSON,
    PLAIN_NAME,
    parse_json,
    parse_json_object,
    read_json_object,
    read_small_file,
    replacing,
    write_json,
)
from minisbert.models.pooling import POOLING_MODES
from minisbert.similarity import SIMILARITY_FUNCTIONS
from minisbert.storage.settings import LEGACY_POOLING_FLAGS, SPECIAL_TOKEN_KEYS, check_settings, nested_settings

CONFIG = "config.json"
POOLING_CONFIG = "1_Pooling/config.json"
ADAPTER = "adapter_config.json"
MODULES = "modules.json"
SENTENCE_TRANSFORMERS_CONFIG = "config_sentence_transformers.json"
# The first that says something counts; the name depends on the version and the class that saved the model.
SENTENCE_CONFIGS = tuple(f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "xlm-roberta", "xlnet"))
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
TOKENIZER_FILES = ("tokenizer.json", TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, "vocab.txt", "added_tokens.json")
LARGEST_TOKENIZER_FILE = 64 * 2**20  # bytes; that of XLM-RoBERTa has 17 million

# Kind of a module -> its folder, as written. A module's type ends in its kind in all versions of sentence-transformers, from
# "sentence_transformers.models.Transformer" to "sentence_transformers.base.modules.transformer.Transformer".
MODULE_FOLDERS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
MODULE_KINDS = tuple(MODULE_FOLDERS)
LEGACY_ORDER = tuple(LEGACY_POOLING_FLAGS.values())
MERGE_FIRST = (
    f"{ADAPTER} says that this is a LoRA adapter (peft), which changes the weights of its base model; merge the two first, "
    "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder), and load that folder"
)
LARGEST_MAX_SEQ_LENGTH = 1 << 20  # tokens
# What the written layout corresponds to. Readers compare it with their own version and warn if it is the newer one.
LAYOUT_VERSION = {"sentence_transformers": "2.1.0", "transformers": "4.13.0", "pytorch": "1.10.0"}


@dataclass(frozen=True)
class ModelFolder:
    """What the small files of a model folder say."""

    config: dict[str, Any]  # config.json, whole
    tokenizer_files: dict[str, bytes]
    tokenizer_config: dict[str, Any]
    encoder_path: str = ""  # inside the folder: "" or, in the oldest models, "0_Transformer" (local folders only)
    max_seq_length: int | None = None  # None: as many as the model has positions for
    lowercase: bool = False
    pooling_mode: str = "mean"  # as in models/pooling.py
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None  # vectors are cut to so many columns


def read_folder(folder: Path) -> ModelFolder:
    """Read all files of a model folder except the weights; ModelError if one is missing, damaged or not supported."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: {'a file, not a model folder' if folder.exists() else _no_such_folder(folder)}")
    modules = _read_modules(folder)
    encoder = folder / modules["Transformer"]
    if any((each / ADAPTER).exists() for each in (folder, encoder)):
        raise ModelError(f"{folder}: {MERGE_FIRST}")
    if not (encoder / CONFIG).exists():
        raise ModelError(f"{encoder}: {_what_it_is(encoder)}")
    if not (folder / MODULES).exists() and (folder / MODULE_FOLDERS["Pooling"] / CONFIG).exists():
        modules["Pooling"] = MODULE_FOLDERS["Pooling"]
        pooling = f"{modules['Pooling']}/{CONFIG} says"
        warnings.warn(f"{folder}: no {MODULES}; pooled as {pooling}, and not normalised", stacklevel=3)
    elif "Pooling" not in modules:
        warnings.warn(f"{folder}: nothing says how to pool ({MODULES}); mean pooling is used", stacklevel=3)
    tokenizer_files = {name: encoder / name for name in TOKENIZER_FILES if (encoder / name).exists()}
    files = {name: read_small_file(path, LARGEST_TOKENIZER_FILE) for name, path in tokenizer_files.items()}
    check_settings(_read_optional(encoder / SPECIAL_TOKENS_MAP), encoder / SPECIAL_TOKENS_MAP, SPECIAL_TOKENS_MAP)
    found = ((encoder / name, _read_optional(encoder / name)) for name in SENTENCE_CONFIGS)
    sentence_path, sentence_config = next((each for each in found if each[1]), (encoder / SENTENCE_CONFIGS[0], {}))
    check_settings(sentence_config, sentence_path, SENTENCE_CONFIGS[0])
    tokenizer_config = _read_optional(encoder / TOKENIZER_CONFIG)
    changes = nested_settings(sentence_config, sentence_path, "tokenizer_args", "processor_kwargs")
    if changes:
        tokenizer_config |= changes
        files[TOKENIZER_CONFIG] = json.dumps(tokenizer_config).encode()
    check_settings(tokenizer_config, encoder / TOKENIZER_CONFIG, TOKENIZER_CONFIG)
    lowercase = sentence_config.get("do_lower_case") or False
    if not isinstance(lowercase, bool):
        raise ModelError(f"{sentence_path}: do_lower_case must be true or false, found {lowercase!r:.50}")
    config_changes = nested_settings(sentence_config, sentence_path, "config_args", "config_kwargs")
    return ModelFolder(
        config=read_json_object(encoder / CONFIG) | config_changes,
        tokenizer_files=files,
        tokenizer_config=tokenizer_config,
        encoder_path=modules["Transformer"],
        max_seq_length=_read_max_seq_length(sentence_config, sentence_path, changes, tokenizer_config),
        lowercase=lowercase,
        pooling_mode=_read_pooling_mode(folder / modules["Pooling"] / CONFIG) if "Pooling" in modules else "mean",
        normalize="Normalize" in modules,
        **_read_model_settings(folder / SENTENCE_TRANSFORMERS_CONFIG),
    )


def _read_model_settings(path: Path) -> dict[str, Any]:
    """Prompts, how vectors are compared and how many columns they have, as fields of `ModelFolder`."""
    settings = _read_optional(path)
    check_settings(settings, path, SENTENCE_TRANSFORMERS_CONFIG)
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelError(f"{path}: prompts must map names to texts")
    default_prompt_name = settings.get("default_prompt_name")
    if default_prompt_name is not None and default_prompt_name not in list(prompts):  # it may be of any type
        raise ModelError(f"{path}: there is no prompt {default_prompt_name!r:.80}")
    similarity = settings.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITY_FUNCTIONS:
        raise ModelError(f"{path}: unknown similarity_fn_name {similarity!r:.80}")
    truncate_dim = settings.get("truncate_dim")
    if truncate_dim is not None and (type(truncate_dim) is not int or truncate_dim < 1):
        raise ModelError(f"{path}: truncate_dim must be 1 or more, found {truncate_dim!r:.50}")
    return {
        "prompts": prompts,
        "default_prompt_name": default_prompt_name,
        "similarity_fn_name": similarity,
        "truncate_dim": truncate_dim,
    }


def _no_such_folder(path: Path) -> str:
    """What to say of a path where nothing is: perhaps it is no path at all."""
    first, *rest = path.parts or ("",)
    if first in ("http:", "https:"):  # of the two slashes behind it, a path keeps one
        return f'an address; a model on the Hub is called "owner/name": {"/".join(rest[1:3]) or "see its page"}'
    if not rest and path.name and not path.suffix:
        return f'no such folder; a model on the Hub is called "owner/name", perhaps sentence-transformers/{path.name}'
    return "no such model folder"


def _what_it_is(folder: Path) -> str:
    """What to say of a folder without config.json."""
    names = {path.name for path in folder.iterdir()}
    snapshots = folder if folder.name == "snapshots" else folder / "snapshots"
    if snapshots.is_dir():
        choices = ", ".join(str(path) for path in sorted(snapshots.iterdir())) or "it has none yet"
        return f"part of the Hub's cache, not a model folder; the model is in one of its snapshots: {choices}"
    cached = sorted(name.removeprefix("models--").replace("--", "/") for name in names if name.startswith("models--"))
    if cached:
        return f"the Hub's cache, not a model folder; name one of its models: {', '.join(cached[:5])}"
    if {"state.json", "sha256.json"} <= names or "trainer_state.json" in names:
        return "a state of training to go on from, not a model; train.py --resume goes on, and its -o folder gets the model"
    return f"no {CONFIG} there: not a model folder"


def write_folder(folder: Path, contents: ModelFolder, width: int, write_weights: Callable[[Path], None]) -> None:
    """Write a model folder in the legacy layout of sentence-transformers.

    Everything is written into a temporary folder first. A new `folder` appears whole; in an existing one, the files are
    replaced one by one, or put back if that fails, and files of other names are left alone. `write_weights` is called with
    the temporary folder. `contents` must say `max_seq_length`, and `width` is D.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed while it wrote
    temporary.mkdir()
    try:
        write_weights(temporary)
        _write_small_files(temporary, contents, width)
        if folder.exists():
            _move_files(temporary, folder)
        else:
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_small_files(folder: Path, contents: ModelFolder, width: int) -> None:
    modules = {kind: path for kind, path in MODULE_FOLDERS.items() if kind != "Normalize" or contents.normalize}
    modes = contents.pooling_mode.split("+")
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    # Version 2.1 knows the first four flags. Vectors are put side by side in their order; version 6 knows other orders too.
    pooling |= {flag: mode in modes for flag, mode in LEGACY_POOLING_FLAGS.items() if mode in [*LEGACY_ORDER[:4], *modes]}
    if modes != [mode for mode in LEGACY_ORDER if mode in modes]:
        pooling["pooling_mode"] = modes
    values = {
        CONFIG: contents.config,
        MODULES: [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (kind, path) in enumerate(modules.items())
        ],
        f"{modules['Pooling']}/{CONFIG}": pooling,
        SENTENCE_CONFIGS[0]: {"max_seq_length": contents.max_seq_length, "do_lower_case": contents.lowercase},
        SENTENCE_TRANSFORMERS_CONFIG: {
            "__version__": LAYOUT_VERSION,
            "prompts": contents.prompts,
            "default_prompt_name": contents.default_prompt_name,
            "similarity_fn_name": contents.similarity_fn_name,
            **({"truncate_dim": contents.truncate_dim} if contents.truncate_dim else {}),
        },
        **_tokenizer_settings(contents),
    }
    for path in filter(None, modules.values()):
        (folder / path).mkdir()
    for name, value in values.items():
        write_json(folder / name, value)
    for name, data in contents.tokenizer_files.items():
        if name not in values:
            with replacing(folder / name) as file:
                file.write(data)


def _tokenizer_settings(contents: ModelFolder) -> dict[str, Any]:
    """What other readers look for in the tokenizer's JSON files: where texts are cut, and the special tokens by name."""
    settings = parse_json_object(contents.tokenizer_files.get(TOKENIZER_CONFIG, b"{}"), TOKENIZER_CONFIG)
    values = {TOKENIZER_CONFIG: {**settings, "model_max_length": contents.max_seq_length}}
    if SPECIAL_TOKENS_MAP not in contents.tokenizer_files:
        special = {key: settings[key] for key in SPECIAL_TOKEN_KEYS if settings.get(key)}
        for key, token in special.items():
            if isinstance(token, dict):  # "__type" is for the other file alone
                special[key] = {name: value for name, value in token.items() if name != "__type"}
        values[SPECIAL_TOKENS_MAP] = special
    return values


def _move_files(source: Path, target: Path) -> None:
    """Let the files of `source` take the place of those in `target`: all of them or, if one fails, none."""
    paths = sorted(source.rglob("*"))
    old = source / "old"
    old.mkdir()
    with contextlib.ExitStack() as undo:
        for number, path in enumerate(paths):
            destination = target / path.relative_to(source)
            if path.is_dir():
                if not destination.exists():
                    destination.mkdir()
                    undo.callback(destination.rmdir)
                continue
            if destination.exists():
                kept = old / str(number)
                try:
                    kept.hardlink_to(destination)
                except OSError:  # a file system that has only one name for each file
                    shutil.copy2(destination, kept)
                undo.callback(kept.replace, destination)
            else:
                undo.callback(destination.unlink, missing_ok=True)
            path.replace(destination)
        undo.pop_all()


def _read_modules(folder: Path) -> dict[str, str]:
    """The modules of the chain by kind, each with its path inside the folder."""
    path = folder / MODULES
    if not path.exists():
        return {"Transformer": ""}
    entries = parse_json(read_small_file(path, LARGEST_JSON), str(path))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{path}: expected a list of modules")
    modules: dict[str, str] = {}
    for entry in entries:
        package, _, kind = str(entry.get("type")).rpartition(".")
        if package.partition(".")[0] != "sentence_transformers" or kind not in MODULE_KINDS:
            raise ModelError(f"{path}: modules of the type {entry.get('type')!r:.80} are not supported")
        inside = entry.get("path")
        if not isinstance(inside, str) or (inside and not PLAIN_NAME.fullmatch(inside)):
            raise ModelError(f"{path}: the path {inside!r:.80} is not that of a folder in this one")
        modules[kind] = inside
    if len(entries) > len(modules) or tuple(modules) not in (MODULE_KINDS[:1], MODULE_KINDS[:2], MODULE_KINDS):
        raise ModelError(f"{path}: this chain of modules is not supported, only {', '.join(MODULE_KINDS)}")
    return modules


def _read_pooling_mode(path: Path) -> str:
    settings = read_json_object(path)
    check_settings(settings, path, POOLING_CONFIG)
    modes = settings.get("pooling_mode")
    if modes is None:
        flags = {mode: settings.get(flag) for flag, mode in LEGACY_POOLING_FLAGS.items()}
        modes = [mode for mode, flag in flags.items() if flag is True]
        modes = modes or ("none" if flags["mean"] is False else "mean")
        if not all(flag in (None, False, True) for flag in flags.values()):
            raise ModelError(f"{path}: the flags of its pooling modes must be true or false")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in POOLING_MODES for mode in modes):
        raise ModelError(f"{path}: pooling mode {modes!r:.80} is not supported, only {', '.join(POOLING_MODES)}")
    return "+".join(modes)


def _read_max_seq_length(
    sentence_config: Mapping[str, Any], path: Path, changes: Mapping[str, Any], tokenizer_config: Mapping[str, Any]
) -> int | None:
    """The folder's own limit; a tokenizer that has none says 10^30, which is read as None (elsewhere it is a limit)."""
    processing = nested_settings(sentence_config, path, "processing_kwargs")
    text = nested_settings(processing, path, "text")
    if processing.keys() - {"text"} or text.keys() - {"max_length"}:
        raise ModelError(f"{path}: in processing_kwargs only text.max_length is supported, found {processing!r:.80}")
    said = [text.get("max_length"), changes.get("model_max_length"), sentence_config.get("max_seq_length")]
    said += [tokenizer_config.get("model_max_length"), tokenizer_config.get("max_len")]
    length = next(filter(None, said), None)
    of_tokenizer = length != sentence_config.get("max_seq_length")
    if length is None or (of_tokenizer and isinstance(length, int | float) and length > LARGEST_MAX_SEQ_LENGTH):
        return None
    if type(length) is not int or length < 1:
        where = f"{SENTENCE_CONFIGS[0]}: max_seq_length (or else model_max_length in tokenizer_config.json)"
        raise ModelError(f"{where} must be a positive whole number, found {length!r:.50}")
    return length


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.exists() else {}
