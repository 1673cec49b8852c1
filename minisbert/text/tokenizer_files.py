"""The tokenizer of a model folder: read from its files, and checked against what the model can do.

tokenizer.json is the truth about a tokenizer, except for the truncation and padding that happened to be on when it was saved:
both are switched off here. Folders older than that file hold vocab.txt, from which BERT's WordPiece tokenizer is built.

A tokenizer.json is a program of sorts, made by strangers. The `tokenizers` package raises an error for most of what can be
wrong in it, but not for patterns that run forever: those are looked for here.
"""

import base64
import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from minisbert.errors import InputError, ModelError
from minisbert.files import parse_json_object
from minisbert.text.tokenizer import Tokenizer, damage_is_model_error

Files = Mapping[str, bytes]  # those of a folder by name: tokenizer.json, vocab.txt, tokenizer_config.json, ...

UNKNOWN_TOKENS = ("[UNK]", "<unk>")  # of WordPiece and SentencePiece, where nothing names one
UNKNOWN_TEXT = "\U00013000"  # an Egyptian hieroglyph: most vocabularies do not have it

# Matching takes forever where a text can be divided among the parts of a pattern in many ways, as in (a+)+ or a+a+b.
# Harmless is an alternation of branches of single characters and classes in which only the last may be repeated without
# bound: nothing comes after it that could send the search back. Published tokenizers need no more, as in " {2,}|[\r\n]".
_ONE = r"(?:[^\\^$.|?*+()\[\]{}]|\\[nrstdw]|\[[^\[\]]+\])"
_BRANCH = rf"{_ONE}+(?:\+|\{{[1-9]\d?,\}})?"
HARMLESS_PATTERN = re.compile(rf"{_BRANCH}(?:\|{_BRANCH})*")
LONGEST_PATTERN = 200  # characters, all of which may be tried at each place of a text
BASIC_PLANE = (range(0xD800), range(0xE000, 0x10000))  # of Unicode: all characters in common use
_ONE_AT_A_TIME = threading.Lock()


def build_tokenizer(
    files: Files, config: Any, max_seq_length: int | None, usual_length: int | None = None, lowercase: bool = False
) -> Tokenizer:
    """Build the tokenizer of a folder; ModelError if it cannot be read, or does not fit the encoder's `config`.

    Texts are cut to `max_seq_length` tokens, or else to the `usual_length` that the folder says, as far as the model can.
    """
    backend = load_backend(files, segments_of_pairs=config.segments > 1)
    special = backend.encode("").ids
    if not special:
        raise ModelError("tokenizer.json: adds no special tokens, so that an empty text would have no tokens at all")
    largest, size = max([*backend.get_vocab(with_added_tokens=True).values(), *special]), config.vocab_size
    if largest >= size:
        raise ModelError(f"tokenizer.json: has the token id {largest}, but the model has {size} embeddings")
    if max_seq_length is None:
        max_seq_length, more = min(usual_length or config.longest_text, config.longest_text), len(special)
        if max_seq_length <= more:
            raise ModelError(f"the model cuts texts to {max_seq_length} tokens, but tokenizer.json adds {more} to each")
    check_max_seq_length(max_seq_length, config)
    settings = parse_json_object(files.get("tokenizer_config.json", b"{}"), "tokenizer_config.json")
    named = getattr(backend.model, "unk_token", None) or token_content(settings.get("unk_token"))
    unknown_token = named or next((token for token in UNKNOWN_TOKENS if backend.token_to_id(token) is not None), None)
    backend.encode_special_tokens = settings.get("split_special_tokens") is True
    cut_side = settings.get("truncation_side") or "right"
    if cut_side not in ("right", "left"):
        raise ModelError(f'tokenizer_config.json: truncation_side must be "right" or "left", found {cut_side!r:.50}')
    return Tokenizer(backend, config.pad_token_id, max_seq_length, unknown_token, lowercase, cut_side)


def check_max_seq_length(length: int, config: Any) -> None:
    """Refuse with InputError more tokens than the model was made for."""
    if length > config.longest_text:
        raise InputError(f"max_seq_length can be at most {config.longest_text} for this model, found {length}")


def load_backend(files: Files, segments_of_pairs: bool) -> tokenizers.Tokenizer:
    """Build the tokenizer that tokenizer.json describes, or else vocab.txt, with truncation and padding off.

    `segments_of_pairs`: whether one built from vocab.txt puts the second text of a pair into segment 1 (BERT).
    """
    if "tokenizer.json" in files:
        return _from_json(files["tokenizer.json"])
    if "vocab.txt" not in files:
        raise ModelError("neither tokenizer.json nor vocab.txt is there: not the folder of a model with its tokenizer")
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    config, special, others = (parse_json_object(files.get(name, b"{}"), name) for name in names)
    added: list[str | None] = list(others)
    if "added_tokens_decoder" in config:  # of newer versions; transformers then reads no other file
        described = config["added_tokens_decoder"]
        added = [token_content(each) for each in described.values()] if isinstance(described, dict) else []
        special = {}
    settings = {**config, **special}
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(name) or []
        added += [token_content(each) for each in (more if isinstance(more, list) else [more])]
    return _word_piece(files["vocab.txt"], settings, added, segments_of_pairs)


def token_content(setting: object) -> str | None:
    """The text of a special token, which configuration files write as "[UNK]" or {"content": "[UNK]", ...}."""
    if isinstance(setting, dict):
        setting = setting.get("content")
    return setting if isinstance(setting, str) else None


def _word_piece(
    vocabulary: bytes, settings: Mapping[str, Any], added: list[str | None], segments_of_pairs: bool
) -> tokenizers.Tokenizer:
    """The tokenizer that BERT's vocab.txt and tokenizer_config.json describe; they can hold no `added` but special tokens."""
    tokenizer_class = settings.get("tokenizer_class") or "BertTokenizer"
    remedy = "needs a tokenizer.json: save one with transformers"
    if tokenizer_class not in ("BertTokenizer", "BertTokenizerFast"):
        raise ModelError(f"tokenizer_config.json: {tokenizer_class!r:.80} {remedy}")
    try:
        tokens = vocabulary.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"vocab.txt: not UTF-8 at byte {error.start}") from None
    vocab = {token.removesuffix("\r"): index for index, token in enumerate(tokens)}
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = {name: token_content(settings.get(name)) or f"[{name[:-6].upper()}]" for name in names}
    missing = [token for token in special.values() if token not in vocab]
    if missing:
        raise ModelError(f"vocab.txt: the special tokens {', '.join(missing)!r:.80} are not in it")
    others = [token for token in added if token not in special.values()]
    if others:
        raise ModelError(f"the added token {others[0]!r:.80} {remedy}")
    cls, sep, accents = special["cls_token"], special["sep_token"], settings.get("strip_accents")
    model = models.WordPiece(vocab, unk_token=special["unk_token"], max_input_chars_per_word=100)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=bool(settings.get("do_lower_case", True)),  # the default of the format, not of Korean models
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    second = int(segments_of_pairs)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:{second} {sep}:{second}",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer


def _from_json(data: bytes) -> tokenizers.Tokenizer:
    description = parse_json_object(data, "tokenizer.json")
    _check_steps([description.get(step) for step in ("normalizer", "pre_tokenizer", "post_processor", "decoder")])
    with damage_is_model_error("tokenizer.json: not a tokenizer"):
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
        tokenizer.no_padding()
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        tokenizer.enable_truncation(special + 1)
        with _no_standard_error():
            length = max(len(tokenizer.encode(text).ids) for text in ("", UNKNOWN_TEXT))
        tokenizer.no_truncation()
    if length > special + 1:
        raise ModelError(f"tokenizer.json: makes {length} tokens of a text that is to be cut to {special + 1}")
    return tokenizer


def _check_steps(steps: list[Any]) -> None:
    """Refuse patterns that could run forever and damaged tables, anywhere in the parsed steps of a tokenizer.json."""
    todo = list(steps)
    while todo:
        step = todo.pop()
        if isinstance(step, list):
            todo += step
        if not isinstance(step, dict):
            continue
        todo += step.values()
        pattern = step.get("Regex")
        if isinstance(pattern, str) and not (len(pattern) <= LONGEST_PATTERN and HARMLESS_PATTERN.fullmatch(pattern)):
            raise ModelError(f"tokenizer.json: the pattern {pattern!r:.80} is not supported: it could run forever")
        if step.get("type") == "Precompiled":  # the replacements of SentencePiece, which fail at single characters
            with damage_is_model_error("tokenizer.json: its precompiled_charsmap is damaged"), _no_standard_error():
                table = base64.b64decode(str(step.get("precompiled_charsmap")), validate=True)
                texts = "\n".join(chr(code) for part in BASIC_PLANE for code in part)
                normalizers.Precompiled(table).normalize_str(texts)


@contextlib.contextmanager
def _no_standard_error() -> Iterator[None]:
    """Keep from the user's terminal what Rust prints about a panic, backtrace and all, before it becomes an exception.

    For moments only, and not while texts are encoded: what other threads print meanwhile is lost.
    """
    with _ONE_AT_A_TIME, open(os.devnull, "wb") as nowhere:
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
