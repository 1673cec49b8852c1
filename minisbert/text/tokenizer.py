"""From texts to token ids to batches.

A model knows a fixed vocabulary of some thousand to a hundred thousand tokens: frequent words, and pieces of which other words
are made. In Korean, particles and endings are such pieces (## = it continues a word):

    밥을 먹는다.  ->  [CLS] 밥 ##을 먹 ##는다 . [SEP]  ->  2 5 6 7 8 9 3

The division (WordPiece: Schuster & Nakajima 2012; Devlin et al. 2018) is done by the `tokenizers` package, as the model's
tokenizer.json says: see tokenizer_files.py. Here is what comes before and after it. Three things can go wrong with a text,
and each is counted: it is too long and is cut, it holds unknown words, or its Hangul is decomposed.
Axis letters: see layers.py.
"""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import tokenizers
import torch
from torch import Tensor

from minisbert.errors import InputError, check_unicode, damage_is_model_error
from minisbert.text.long_text import encode_starts

# What the package returns takes some hundred times the memory of the ids; they are copied out block by block.
TEXTS_AT_ONCE = 4096


@dataclass(frozen=True)
class TokenizedTexts:
    """The token ids of N texts, end to end in one array, and what happened to the texts on the way."""

    ids: npt.NDArray[np.uint32]  # (sum of lengths,)
    ends: npt.NDArray[np.int64]  # (N,), where each text ends in `ids`
    truncated: int  # texts cut to max_seq_length: what was cut does not count in the vector
    unknown: int  # tokens [UNK]: words that no pieces make up, so that their meaning is lost
    # Texts not in Unicode normal form C. macOS writes 밥 in file names as three letters, which look the same on the screen. A
    # Korean vocabulary has only the composed syllable, so most of their words become [UNK].
    not_nfc: int

    @functools.cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each text, special tokens included: (N,)."""
        return np.diff(self.ends, prepend=0)

    def row(self, index: int) -> npt.NDArray[np.uint32]:
        """Token ids of one text: (length,)."""
        return self.ids[self.ends[index - 1] if index else 0 : self.ends[index]]


class Tokenizer:
    r"""Turns texts into token ids, cut to at most `max_seq_length` tokens.

    Args:
        backend: as `load_backend` of tokenizer_files.py gives it.
        pad_token_id: fills the ends of the shorter rows of a batch.
        max_seq_length: see the property.
        unknown_token: counted in `TokenizedTexts.unknown`; None = nothing is counted.
        cut_side: the end of a text that is too long which is cut off, "right" or "left".
        vocab_size: V, the number of tokens that the model has embeddings for; None = all that there are.

    >>> from minisbert.text.tokenizer_files import load_backend
    >>> vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "밥", "##을", "먹", "##는다", "."]
    >>> files = {"vocab.txt": "\n".join(vocabulary).encode(), "tokenizer_config.json": b'{"do_lower_case": false}'}
    >>> tokenizer = Tokenizer(load_backend(files, True), pad_token_id=0, max_seq_length=7, unknown_token="[UNK]")
    >>> texts = tokenizer(["밥을 먹는다.", "빵을 먹는다.", "밥을 먹는다. 밥", unicodedata.normalize("NFD", "밥")])
    >>> [texts.row(index).tolist() for index in range(4)]
    [[2, 5, 6, 7, 8, 9, 3], [2, 1, 7, 8, 9, 3], [2, 5, 6, 7, 8, 9, 3], [2, 1, 3]]
    >>> texts.truncated, texts.unknown, texts.not_nfc
    (1, 2, 1)
    >>> tokenizer.pad(texts, [3, 1])
    (tensor([[2, 1, 3, 0, 0, 0],
            [2, 1, 7, 8, 9, 3]]), tensor([[ True,  True,  True, False, False, False],
            [ True,  True,  True,  True,  True,  True]]))
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        pad_token_id: int,
        max_seq_length: int,
        unknown_token: str | None = None,
        cut_side: str = "right",
        vocab_size: int | None = None,
    ) -> None:
        self.backend = backend
        self.vocab_size = vocab_size
        self.cut_side = cut_side
        self.pad_token_id = pad_token_id
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
            raise InputError(f"max_seq_length must be at least {special + 1} ({special} are special tokens), found {length}")
        self.backend.enable_truncation(length, direction=self.cut_side)
        self._max_seq_length = int(length)

    def __call__(self, texts: Sequence[str], prompt: str = "") -> TokenizedTexts:
        """Tokenize texts, special tokens added.

        Args:
            texts: N texts; the empty text becomes the special tokens alone.
            prompt: put before every text.

        Raises:
            TypeError: a text is not a `str`, and the message names its row, or the prompt is no `str`.
            InputError: a text or the prompt holds a lone surrogate, which is no character, or a token that the model has no
                embedding for; the message says where.
            ModelError: the tokenizer is damaged, in a part that only some texts need.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt must be a str, found {type(prompt).__name__}")
        check_unicode(prompt, "prompt")
        blocks: list[npt.NDArray[np.uint32]] = []
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
            with damage_is_model_error("tokenizer.json: fails on one of the texts"):
                if self.cut_side == "right":
                    encodings = encode_starts(self.backend, block, self.max_seq_length)
                else:
                    encodings = self.backend.encode_batch(block)
            lengths[begin : begin + len(block)] = [len(encoding.ids) for encoding in encodings]
            truncated += sum(bool(encoding.overflowing) for encoding in encodings)
            blocks.append(np.array([token for encoding in encodings for token in encoding.ids], dtype=np.uint32))
        ids = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.uint32)
        if self.vocab_size is not None and len(ids) and ids.max() >= self.vocab_size:
            self._refuse_token(ids, np.cumsum(lengths), self.vocab_size)
        unknown = 0 if self.unknown_token_id is None else int((ids == self.unknown_token_id).sum())
        return TokenizedTexts(ids, np.cumsum(lengths), truncated, unknown, not_nfc)

    def _refuse_token(self, ids: npt.NDArray[np.uint32], ends: npt.NDArray[np.int64], size: int) -> NoReturn:
        """Name the first token without an embedding: tokens can be added to a tokenizer and not to the model."""
        position = int(np.argmax(ids >= size))
        token, row = int(ids[position]), int(np.searchsorted(ends, position, side="right"))
        name = f"the token {self.backend.id_to_token(token)!r:.80} has the id {token}"
        raise InputError(f"row {row}: {name}, but the model has {size} embeddings; take it out of the text")

    def pad(self, texts: TokenizedTexts, rows: Sequence[int] | npt.NDArray[np.integer]) -> tuple[Tensor, Tensor | None]:
        """Make a batch of some of the texts, padded on the right to the longest of them.

        Where all of them have one length there is nothing to hide from attention, and no mask is made: without one, the
        attention of BERT and RoBERTa takes its fastest kernel. (DeBERTa's has its position scores to add in any case.)

        Args:
            texts: N tokenized texts.
            rows: (B,), which of them: 0 to N - 1.

        Returns:
            input_ids (B, T) int64, and attention_mask (B, T) bool, True = real token, or None if nothing is padded.
        """
        lengths = texts.lengths[rows]  # (B,)
        longest = int(lengths.max())
        real = np.arange(longest) < lengths[:, None]  # (B, T)
        input_ids = np.full(real.shape, self.pad_token_id, dtype=np.int64)
        input_ids[real] = np.concatenate([texts.row(int(row)) for row in rows])
        return torch.from_numpy(input_ids), None if real.all() else torch.from_numpy(real)
