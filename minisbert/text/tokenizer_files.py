"""The tokenizer of a model folder: read from its files, and checked against what the model can do.

tokenizer.json holds a tokenizer: its vocabulary and its steps. But transformers takes the steps of some classes from the class
and from tokenizer_config.json, whatever tokenizer.json says, and so it is done here (`_apply_class`). Truncation and padding
that happened to be on when the file was saved are switched off. Folders older than that file hold vocab.txt, from which
BERT's WordPiece tokenizer is built. Checked against transformers 5.24.0.

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
    files: Files,
    config: Any,
    max_seq_length: int | None,
    usual_length: int | None = None,
    lowercase: bool = False,
    usual_class: str = "",
) -> Tokenizer:
    """Build the tokenizer of a folder; ModelError if it cannot be read, or does not fit the encoder's `config`.

    Texts are cut to `max_seq_length` tokens, or else to the `usual_length` that the folder says, as far as the model can.
    `usual_class` is the class of the tokenizer where tokenizer_config.json names none.
    """
    backend = load_backend(files, config.segments > 1, usual_class)
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


def load_backend(files: Files, segments_of_pairs: bool, usual_class: str = "") -> tokenizers.Tokenizer:
    """Build the tokenizer that tokenizer.json describes, or else vocab.txt, with truncation and padding off.

    `segments_of_pairs`: whether one built from vocab.txt puts the second text of a pair into segment 1 (BERT). `usual_class`:
    the class of the tokenizer where tokenizer_config.json names none.
    """
    if "tokenizer.json" not in files and "vocab.txt" not in files:
        raise ModelError(
            "neither tokenizer.json nor vocab.txt is there; of another form of a tokenizer (sentencepiece.bpe.model, "
            "spm.model, vocab.json) transformers makes it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    config, special, others = (parse_json_object(files.get(name, b"{}"), name) for name in names)
    added: list[str | None] = list(others)
    if "added_tokens_decoder" in config:  # of newer versions; transformers then reads no other file
        described = config["added_tokens_decoder"]
        added = [token_content(each) for each in described.values()] if isinstance(described, dict) else []
        special = {}
    settings = {**config, **special}
    if "tokenizer.json" in files:
        settings["tokenizer_class"] = settings.get("tokenizer_class") or usual_class
        return _from_json(files["tokenizer.json"], settings, segments_of_pairs)
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
    model = models.WordPiece(vocab, unk_token=special["unk_token"], max_input_chars_per_word=100)
    tokenizer = tokenizers.Tokenizer(model)
    _apply_class(tokenizer, {**settings, "tokenizer_class": "BertTokenizer"}, {}, segments_of_pairs)
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer


def _apply_class(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], description: Mapping[str, Any], segments_of_pairs: bool
) -> None:
    """Give a tokenizer the steps that its class has in transformers, where it is one of BERT's or a SentencePiece model.

    `description` is the parsed tokenizer.json, of which the character table of SentencePiece is kept.
    """
    kind = (type(backend.model), str(settings.get("tokenizer_class")).removesuffix("Fast"))
    first, last = ("cls_token", "[CLS]"), ("sep_token", "[SEP]")
    if kind == (models.WordPiece, "BertTokenizer"):
        accents = settings.get("strip_accents")
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=_flag(settings, "tokenize_chinese_chars", True),
            strip_accents=None if accents is None else _flag(settings, "strip_accents", False),
            lowercase=_flag(settings, "do_lower_case", True),  # the default of the format, not of Korean models
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif kind == (models.Unigram, "XLMRobertaTokenizer"):
        # White space ends words and is then gone, whatever there is of it and wherever it stands.
        table = _precompiled(description.get("normalizer"))
        backend.normalizer = None if table is None else normalizers.Precompiled(table)
        scheme = "always" if _flag(settings, "add_prefix_space", True) else "never"
        words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", scheme)]
        backend.pre_tokenizer = pre_tokenizers.Sequence(words)
        first, last = ("bos_token", "<s>"), ("eos_token", "</s>")
    elif kind == (models.Unigram, "DebertaV2Tokenizer"):
        lower = [normalizers.Lowercase()] if _flag(settings, "do_lower_case", False) else []
        spaces = normalizers.Replace(tokenizers.Regex(r"\s{2,}|[\n\r\t]"), " ")
        backend.normalizer = normalizers.Sequence([*lower, spaces, normalizers.NFC(), normalizers.Strip(left=False)])
        scheme = "always" if _flag(settings, "add_prefix_space", True) else "first"
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace("▁", scheme)])
    else:
        return
    begin, end = (token_content(settings.get(name)) or usual for name, usual in (first, last))
    numbers = [(token, backend.token_to_id(token)) for token in (begin, end)]
    if all(number is not None for _, number in numbers):
        second = int(segments_of_pairs)
        backend.post_processor = processors.TemplateProcessing(
            single=[begin, "$A", end],
            pair=[begin, "$A", end, f"$B:{second}", f"{end}:{second}"],
            special_tokens=numbers,
        )


def _flag(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise ModelError(f"tokenizer_config.json: {name} must be true or false, found {value!r:.50}")
    return value


def _precompiled(normalizer: Any) -> bytes | None:
    """The character table in the normalizer of a tokenizer.json, or None."""
    steps = [normalizer, *(normalizer.get("normalizers") or [])] if isinstance(normalizer, dict) else []
    tables = [step["precompiled_charsmap"] for step in steps if isinstance(step, dict) and step.get("type") == "Precompiled"]
    return base64.b64decode(tables[0]) if tables else None


def _from_json(data: bytes, settings: Mapping[str, Any], segments_of_pairs: bool) -> tokenizers.Tokenizer:
    description = parse_json_object(data, "tokenizer.json")
    _check_steps([description.get(step) for step in ("normalizer", "pre_tokenizer", "post_processor", "decoder")])
    with damage_is_model_error("tokenizer.json: not a tokenizer"):
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
    _apply_class(tokenizer, settings, description, segments_of_pairs)
    with damage_is_model_error("tokenizer.json: not a tokenizer"):
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
