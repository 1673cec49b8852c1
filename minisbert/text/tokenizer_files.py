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
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from minisbert.errors import InputError, ModelError, damage_is_model_error
from minisbert.files import parse_json_object
from minisbert.text.tokenizer import Tokenizer

Files = Mapping[str, bytes]  # those of a folder by name: tokenizer.json, vocab.txt, tokenizer_config.json, ...

# The classes of transformers that take their steps from their settings, whatever tokenizer.json says: the kind of their model,
# and the special tokens that they have if the settings name no others.
SPECIAL_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
USUAL_TOKENS: dict[str, tuple[Any, ...]] = {
    "BertTokenizer": (models.WordPiece, None, None, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"),
    "RobertaTokenizer": (models.BPE, "<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"),
    "XLMRobertaTokenizer": (models.Unigram, "<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"),
    "DebertaV2Tokenizer": (models.Unigram, "[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"),
}
BERT_CLASSES = [f"{name}Tokenizer" for name in ("Bert", "DistilBert", "ConvBert", "MobileBert", "SqueezeBert", "Electra")]
ADDED_TOKEN_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized")
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
    folder_length: int | None = None,
    lowercase: bool = False,
    default_class: str = "",
) -> Tokenizer:
    """Build the tokenizer of a folder; ModelError if it cannot be read, or does not fit the encoder's `config`.

    Texts are cut to `max_seq_length` tokens, or else to the `folder_length` that the folder says, as far as the model can.
    `default_class` is the class of the tokenizer where tokenizer_config.json names none.
    """
    backend, settings = _load(files, config.segments > 1, default_class)
    if lowercase:
        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(steps)
    special = backend.encode("").ids
    if not special:
        raise ModelError("tokenizer.json: adds no special tokens, so that an empty text would have no tokens at all")
    if max(special) >= config.vocab_size:
        rows = f"but the model has {config.vocab_size} embeddings"
        raise ModelError(f"tokenizer.json: adds a token with the id {max(special)} to each text, {rows}")
    if max_seq_length is None:
        if folder_length and folder_length > config.longest_text:
            made_for = f"this model was made for {config.longest_text}, and texts are cut to that"
            warnings.warn(f"the folder says that texts have up to {folder_length} tokens; {made_for}", stacklevel=3)
        max_seq_length, more = min(folder_length or config.longest_text, config.longest_text), len(special)
        if max_seq_length <= more:
            raise ModelError(f"the model cuts texts to {max_seq_length} tokens, but tokenizer.json adds {more} to each")
    check_max_seq_length(max_seq_length, config)
    named = getattr(backend.model, "unk_token", None) or token_content(settings.get("unk_token"))
    unknown_token = named or next((token for token in UNKNOWN_TOKENS if backend.token_to_id(token) is not None), None)
    backend.encode_special_tokens = _flag(settings, "split_special_tokens", False)
    cut_side = settings.get("truncation_side") or "right"
    if cut_side not in ("right", "left"):
        raise ModelError(f'tokenizer_config.json: truncation_side must be "right" or "left", found {cut_side!r:.50}')
    return Tokenizer(backend, config.pad_token_id, max_seq_length, unknown_token, cut_side, config.vocab_size)


def check_max_seq_length(length: int, config: Any) -> None:
    """Refuse with InputError more tokens than the model was made for."""
    if length > config.longest_text:
        raise InputError(f"max_seq_length can be at most {config.longest_text} for this model, found {length}")


def load_backend(files: Files, segments_of_pairs: bool, default_class: str = "") -> tokenizers.Tokenizer:
    """Build the tokenizer that tokenizer.json describes, or else vocab.txt, with truncation and padding off.

    `segments_of_pairs`: whether one built from vocab.txt puts the second text of a pair into segment 1 (BERT). `default_class`:
    the class of the tokenizer where tokenizer_config.json names none.
    """
    return _load(files, segments_of_pairs, default_class)[0]


def _load(files: Files, segments_of_pairs: bool, default_class: str) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The tokenizer, and what the settings files say about it."""
    if "tokenizer.json" not in files and "vocab.txt" not in files:
        raise ModelError(
            "neither tokenizer.json nor vocab.txt is there; of another form of a tokenizer (sentencepiece.bpe.model, "
            "spm.model, vocab.json) transformers makes it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    settings, special, others = (parse_json_object(files.get(name, b"{}"), name) for name in names)
    described = parse_json_object(files.get("tokenizer.json", b"{}"), "tokenizer.json")
    if "added_tokens_decoder" not in settings:  # that of newer versions; transformers then reads no other file
        there, here = settings.get("extra_special_tokens"), special.get("extra_special_tokens")
        if isinstance(there, list | dict) and isinstance(here, list):  # here alone, both count
            special["extra_special_tokens"] = [*(there.values() if isinstance(there, dict) else there), *here]
        settings = {**settings, **special}
        settings["added_tokens_decoder"] = {number: {"content": content} for content, number in others.items()}
        settings["added_tokens_decoder"] |= {each.get("id"): each for each in _dicts(described.get("added_tokens"))}
    settings["tokenizer_class"] = str(settings.get("tokenizer_class") or default_class).removesuffix("Fast")
    if "tokenizer.json" not in files:
        backend = tokenizers.Tokenizer(_word_piece(files["vocab.txt"], settings))
        settings["tokenizer_class"] = "BertTokenizer"
    else:
        _check_steps([described.get(step) for step in ("normalizer", "pre_tokenizer", "post_processor", "decoder")])
        with damage_is_model_error("tokenizer.json: not a tokenizer"):
            backend = tokenizers.Tokenizer.from_buffer(files["tokenizer.json"])
        if backend.truncation is not None and not settings.get("truncation_side"):
            settings["truncation_side"] = backend.truncation["direction"]
    with damage_is_model_error("tokenizer.json: not a tokenizer"):
        backend = _of_class(backend, settings, described, segments_of_pairs)
        backend.no_padding()
        special_tokens = backend.num_special_tokens_to_add(is_pair=False)
        backend.enable_truncation(special_tokens + 1)
        with _no_standard_error():
            length = max(len(backend.encode(text).ids) for text in ("", UNKNOWN_TEXT))
        backend.no_truncation()
    if length > special_tokens + 1:
        raise ModelError(f"tokenizer.json: makes {length} tokens of a text that is to be cut to {special_tokens + 1}")
    return backend, settings


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def token_content(setting: object) -> str | None:
    """The text of a special token, which configuration files write as "[UNK]" or {"content": "[UNK]", ...}."""
    if isinstance(setting, dict):
        setting = setting.get("content")
    return setting if isinstance(setting, str) else None


def _word_piece(vocabulary: bytes, settings: Mapping[str, Any]) -> models.WordPiece:
    """The model that BERT's vocab.txt is: the tokens, one a line."""
    if settings["tokenizer_class"] and settings["tokenizer_class"] not in BERT_CLASSES:
        needs = f"{settings['tokenizer_class']!r:.80} needs a tokenizer.json: save one with transformers"
        raise ModelError(f"tokenizer_config.json: {needs}")
    try:
        tokens = vocabulary.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"vocab.txt: not UTF-8 at byte {error.start}") from None
    vocab = {token.removesuffix("\r"): index for index, token in enumerate(tokens)}
    special = [token_content(settings.get(f"{name}_token")) or f"[{name.upper()}]" for name in SPECIAL_NAMES[2:]]
    missing = [token for token in special if token not in vocab]
    if missing:
        raise ModelError(f"vocab.txt: the special tokens {', '.join(missing)!r:.80} are not in it")
    return models.WordPiece(vocab, unk_token="[UNK]")


def _of_class(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], described: Mapping[str, Any], segments_of_pairs: bool
) -> tokenizers.Tokenizer:
    """The tokenizer as its class in transformers makes it: with the steps of the class, and all special and added tokens.

    Of a tokenizer.json, which `described` is when parsed, such a class takes the vocabulary and the character table of
    SentencePiece. There are four; of any other, and where the vocabulary is of another kind, the steps are those of the file.
    """
    name, kind = settings["tokenizer_class"], type(backend.model)
    name = "BertTokenizer" if name in BERT_CLASSES else name
    if USUAL_TOKENS.get(name, (None,))[0] is not kind:
        backend.add_tokens(_added_tokens(settings, {}))
        return backend
    usual = dict(zip(SPECIAL_NAMES, USUAL_TOKENS[name][1:], strict=True))
    special = {each: token_content(settings.get(f"{each}_token", usual[each])) for each in SPECIAL_NAMES}
    first, last = ("bos", "eos") if name == "XLMRobertaTokenizer" else ("cls", "sep")
    begin, end, unknown, second = special[first], special[last], special["unk"], int(segments_of_pairs)
    if begin is None or end is None or unknown is None:
        raise ModelError(f"tokenizer_config.json: {first}_token, {last}_token and unk_token must be texts")
    _set_steps(backend, name, settings, described, unknown)
    made = tokenizers.Tokenizer(backend.model)
    for step in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(backend, step) is not None:
            setattr(made, step, getattr(backend, step))
    made.add_tokens(_added_tokens(settings, usual))
    made.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end],
        pair=[begin, "$A", end, f"$B:{second}", f"{end}:{second}"],
        special_tokens=[(token, made.token_to_id(token)) for token in {begin: 0, end: 0}],
    )
    return made


def _set_steps(
    backend: tokenizers.Tokenizer, name: str, settings: Mapping[str, Any], described: Mapping[str, Any], unknown: str
) -> None:
    """Give a tokenizer the steps of one of the four classes."""
    model: Any = backend.model
    backend.normalizer = None
    if name == "BertTokenizer":
        model.unk_token, model.max_input_chars_per_word, model.continuing_subword_prefix = unknown, 100, "##"
        accents = settings.get("strip_accents")
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=_flag(settings, "tokenize_chinese_chars", True),
            strip_accents=None if accents is None else _flag(settings, "strip_accents", False),
            lowercase=_flag(settings, "do_lower_case", True),  # the default of the format, not of Korean models
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        return
    if name == "RobertaTokenizer":
        model.dropout, model.unk_token, model.fuse_unk = None, None, False
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=_flag(settings, "add_prefix_space", False))
        return
    vocabulary = _dicts([described.get("model")])[0]
    entries, unknown_id = vocabulary.get("vocab") or [], 3
    always = _flag(settings, "add_prefix_space", True)
    if name == "XLMRobertaTokenizer":
        # White space ends words and is then gone, whatever there is of it and wherever it stands.
        table = _precompiled(described.get("normalizer"))
        if table is not None:
            backend.normalizer = normalizers.Precompiled(table)
        metaspace = pre_tokenizers.Metaspace("▁", "always" if always else "never")
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    else:
        unknown_id = next((row for row, entry in enumerate(entries) if entry == [unknown, 0.0]), settings.get("unk_id", 1))
        lower = [normalizers.Lowercase()] if _flag(settings, "do_lower_case", False) else []
        spaces = normalizers.Replace(tokenizers.Regex(r"\s{2,}|[\n\r\t]"), " ")
        backend.normalizer = normalizers.Sequence([*lower, spaces, normalizers.NFC(), normalizers.Strip(left=False)])
        metaspace = pre_tokenizers.Metaspace("▁", "always" if always else "first")
        backend.pre_tokenizer = pre_tokenizers.Sequence([metaspace])
    if vocabulary.get("unk_id") != unknown_id or vocabulary.get("byte_fallback"):
        raise ModelError(f"tokenizer.json: a {name} has the unk_id {unknown_id} and no byte_fallback")


def _added_tokens(settings: Mapping[str, Any], usual: Mapping[str, str]) -> list[tokenizers.AddedToken]:
    """The tokens that are one piece wherever they stand in a text, in the order in which transformers adds them.

    Of two with the same text the first one counts. Those that are not in the vocabulary get the next ids.
    """
    numbered = settings.get("added_tokens_decoder") or {}
    more: Any = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    named = {f"{name}_token": token for name, token in usual.items()}
    named |= {
        key: value
        for key, value in settings.items()
        if key.endswith("_token") and (token_content(value) is not None or key.removesuffix("_token") in SPECIAL_NAMES)
    }
    if isinstance(more, dict):
        named, more = named | more, []
    try:
        tokens = [*(numbered[key] for key in sorted(numbered, key=int)), *named.values(), *more]
        specials = {token_content(token) for token in (*named.values(), *more)}
        descriptions = [{"content": token} if isinstance(token, str) else token for token in tokens if token is not None]
        return [
            tokenizers.AddedToken(
                **{key: value for key, value in each.items() if key in ADDED_TOKEN_FIELDS},
                special=each.get("special") is True or each["content"] in specials,
            )
            for each in descriptions
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ModelError("tokenizer_config.json: its special or added tokens are not described as tokens are") from None


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
