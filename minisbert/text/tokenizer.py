"""From text to token ids, with the `tokenizers` package and the tokenizer.json of the model.

tokenizer.json is the truth about a tokenizer, except for the truncation and padding that happened to be on when it
was saved: both are reset here. Folders older than that file hold vocab.txt, from which the WordPiece tokenizer of
BERT is built (Devlin et al. 2018; Schuster & Nakajima 2012). Axis letters: see layers.py.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
import torch
from torch import Tensor

from minisbert.errors import InputError, ModelError, check_unicode
from minisbert.files import one_line, parse_json_object
from minisbert.text.tokenizer_checks import check_steps

# What the tokenizer returns takes some hundred times the memory of the ids; they are copied out block by block.
TEXTS_AT_ONCE = 4096
CHARACTERS_PER_TOKEN = 8  # so many are enough for most texts: 2 are usual in Korean, 5 in English
# To BERT's rules a run of one kind, however long, is one unknown word, one gap or nothing; an ideograph is a word of its own.
ENDLESS_RUNS = (
    "[0-9A-Za-zÀ-ɏЀ-ҁҊ-ӿ\u1100-\u11ffぁ-ゖァ-ヺーㄱ-ㆎ가-힣]",
    "[ \t\r\n\u3000]",
    "[\u200b-\u200d\u2060\ufeff]",
)
BRACKETED = re.compile(r"\[\S{1,30}\]|<\S{1,30}>")  # special tokens such as [MASK] or <mask>
UNKNOWN_TEXT = "\U00013000"  # an Egyptian hieroglyph: most vocabularies do not have it


@dataclass(frozen=True)
class TokenizedTexts:
    """The token ids of N texts, end to end in one array, and what happened to the texts on the way."""

    ids: npt.NDArray[np.int32]  # (sum of lengths,)
    ends: npt.NDArray[np.int64]  # (N,), where each text ends in `ids`
    truncated: int  # texts cut to max_seq_length
    unknown: int  # tokens [UNK]
    # Texts not in Unicode normal form C, such as Hangul typed on macOS: mostly [UNK] to a Korean vocabulary.
    not_nfc: int

    @functools.cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each text, special tokens included: (N,)."""
        return np.diff(self.ends, prepend=0)

    def row(self, index: int) -> npt.NDArray[np.int32]:
        """Token ids of one text: (length,)."""
        return self.ids[self.ends[index - 1] if index else 0 : self.ends[index]]


class Tokenizer:
    """Turns texts into token ids, cut to at most `max_seq_length` tokens.

    Args:
        backend: as `load_backend` gives it.
        pad_token_id: fills the ends of the shorter rows of a batch.
        max_seq_length: see the property.
        unknown_token: counted in `TokenizedTexts.unknown`; None = nothing is counted.
        lowercase: lower the case of texts first, as `str.lower` does.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        pad_token_id: int,
        max_seq_length: int,
        unknown_token: str | None = None,
        lowercase: bool = False,
    ) -> None:
        self.backend = backend
        self.pad_token_id = pad_token_id
        self.lowercase = lowercase
        self.unknown_token_id = None if unknown_token is None else backend.token_to_id(unknown_token)
        self.max_seq_length = max_seq_length

    @property
    def max_seq_length(self) -> int:
        """Texts are cut to this number of tokens, special ones included; InputError if none would be left for the text."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, length: int) -> None:
        special = self.backend.num_special_tokens_to_add(is_pair=False)
        if length <= special:
            raise InputError(
                f"max_seq_length must be at least {special + 1} ({special} are special tokens), found {length}"
            )
        self.backend.enable_truncation(length)
        self._max_seq_length = length

    def __call__(self, texts: Sequence[str], prompt: str = "") -> TokenizedTexts:
        """Tokenize texts, special tokens added.

        Args:
            texts: N texts; the empty text becomes the special tokens alone.
            prompt: put before every text.

        Raises:
            TypeError: a text is not a `str`, and the message names its row, or the prompt is none.
            InputError: a text or the prompt holds a lone surrogate, which is no character; the message says where.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt must be a str, found {type(prompt).__name__}")
        check_unicode(prompt, "prompt")
        blocks: list[npt.NDArray[np.int32]] = []
        lengths = np.zeros(len(texts), dtype=np.int64)
        truncated = not_nfc = 0
        for begin in range(0, len(texts), TEXTS_AT_ONCE):
            block = texts[begin : begin + TEXTS_AT_ONCE]
            for row, text in enumerate(block, start=begin):
                if not isinstance(text, str):
                    raise TypeError(f"row {row}: every text must be a str, found {type(text).__name__}")
                check_unicode(text, f"row {row}")
                not_nfc += not unicodedata.is_normalized("NFC", text)
            block = [prompt + text for text in block]
            encodings = self._encode([text.lower() for text in block] if self.lowercase else block)
            lengths[begin : begin + len(block)] = [len(encoding.ids) for encoding in encodings]
            truncated += sum(bool(encoding.overflowing) for encoding in encodings)
            blocks.append(np.array([token for encoding in encodings for token in encoding.ids], dtype=np.int32))
        ids = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.int32)
        unknown = 0 if self.unknown_token_id is None else int((ids == self.unknown_token_id).sum())
        return TokenizedTexts(ids, np.cumsum(lengths), truncated, unknown, not_nfc)

    def _encode(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Tokenize texts, long ones only as far as needed: the package tokenizes all of a text before it cuts it.

        Where BERT's rules hold, the end of a text decides about nothing before the word that it is in. So the start of
        a text has the first tokens of the whole if it has as many more as a word can have; else a longer start is
        tried.
        """
        longest = _longest_word(self.backend)
        if longest is None:
            return self.backend.encode_batch(texts)
        size = CHARACTERS_PER_TOKEN * (self.max_seq_length + longest)  # characters
        encodings = self.backend.encode_batch([text[:size] for text in texts])
        special = self.backend.num_special_tokens_to_add(is_pair=False)
        for row, text in enumerate(texts):
            start = size
            while start < len(text) and sum(len(part) - special for part in encodings[row].overflowing) < longest:
                # Few tokens from many characters: runs longer than any word. Cut to a length that still is, they mean the same.
                runs = "|".join(f"{run}{{{longest},}}" for run in ENDLESS_RUNS)
                text = re.sub(runs, lambda run: run[0][:longest], text)
                start *= CHARACTERS_PER_TOKEN
                encodings[row] = self.backend.encode(text[:start])
        return encodings

    def pad(self, texts: TokenizedTexts, rows: Sequence[int] | npt.NDArray[np.integer]) -> tuple[Tensor, Tensor | None]:
        """Make a batch of some of the texts, padded on the right to the longest of them.

        Args:
            texts: N tokenized texts.
            rows: (B,), which of them: 0 to N - 1.

        Returns:
            input_ids (B, T) int64 and attention_mask (B, T) bool, True = real token; the mask is None if nothing is
            padded.
        """
        lengths = texts.lengths[rows]  # (B,)
        longest = int(lengths.max())
        real = np.arange(longest) < lengths[:, None]  # (B, T)
        input_ids = np.full(real.shape, self.pad_token_id, dtype=np.int64)
        input_ids[real] = np.concatenate([texts.row(int(row)) for row in rows])
        return torch.from_numpy(input_ids), None if real.all() else torch.from_numpy(real)


def _longest_word(backend: tokenizers.Tokenizer) -> int | None:
    """More characters, and so more tokens, than a word or special token can have; None without BERT's rules.

    BERT's rules: text is divided at white space and punctuation, whatever stands farther off, and a word of too many
    characters is one unknown token. Special tokens in brackets do not disturb this; other added tokens might.
    """
    added = backend.get_added_tokens_decoder().values()
    if (
        isinstance(backend.model, tokenizers.models.WordPiece)
        and isinstance(backend.normalizer, tokenizers.normalizers.BertNormalizer)
        and isinstance(backend.pre_tokenizer, tokenizers.pre_tokenizers.BertPreTokenizer)
        and all(BRACKETED.fullmatch(token.content) for token in added)
    ):
        return int(backend.model.max_input_chars_per_word) + 100  # a bracketed token cut in two has fewer
    return None


def load_backend(files: Mapping[str, bytes], segments_of_pairs: bool) -> tokenizers.Tokenizer:
    """Build the tokenizer of a model folder.

    Args:
        files: the folder's tokenizer files by name: tokenizer.json, or else vocab.txt with those that explain it.
        segments_of_pairs: whether the second text of a pair is of segment 1 (BERT), should one be built from vocab.txt.

    Raises:
        ModelError: neither file is there, or it is damaged, or it needs what is not supported.
    """
    if "tokenizer.json" in files:
        return _from_json(files["tokenizer.json"])
    if "vocab.txt" not in files:
        raise ModelError(
            "neither tokenizer.json nor vocab.txt is there: this is not the folder of a model with its tokenizer"
        )
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


def _from_json(data: bytes) -> tokenizers.Tokenizer:
    """The tokenizer that tokenizer.json describes, with truncation and padding off."""
    description = parse_json_object(data, "tokenizer.json")
    check_steps([description.get(step) for step in ("normalizer", "pre_tokenizer", "post_processor", "decoder")])
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode(UNKNOWN_TEXT)  # fails where the vocabulary lacks the token for what it does not know
    except Exception as error:  # the package raises bare Exception
        raise ModelError(f"tokenizer.json: not a tokenizer: {one_line(error)}") from None
    return tokenizer


def _word_piece(
    vocabulary: bytes, settings: Mapping[str, Any], added: list[str | None], segments_of_pairs: bool
) -> tokenizers.Tokenizer:
    """The tokenizer that BERT's vocab.txt and tokenizer_config.json describe.

    Of the tokens in `added`, a vocab.txt can do with the special ones alone.
    """
    tokenizer_class = settings.get("tokenizer_class") or "BertTokenizer"
    if tokenizer_class not in ("BertTokenizer", "BertTokenizerFast"):
        raise ModelError(
            f"tokenizer_config.json: {tokenizer_class!r:.80} needs a tokenizer.json: save one with transformers"
        )
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
        raise ModelError(f"the added token {others[0]!r:.80} needs a tokenizer.json: save one with transformers")
    cls, sep, unknown = special["cls_token"], special["sep_token"], special["unk_token"]
    accents = settings.get("strip_accents")
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocab, unk_token=unknown, max_input_chars_per_word=100)
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=bool(settings.get("do_lower_case", True)),  # the default of the format, not of Korean models
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    second = 1 if segments_of_pairs else 0
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:{second} {sep}:{second}",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer


def token_content(setting: object) -> str | None:
    """The text of a special token, which configuration files write as "[UNK]" or {"content": "[UNK]", ...}."""
    if isinstance(setting, dict):
        setting = setting.get("content")
    return setting if isinstance(setting, str) else None
