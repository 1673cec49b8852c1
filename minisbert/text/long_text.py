"""The first tokens of a long text, without tokenizing all of it.

The `tokenizers` package tokenizes the whole of a text and cuts the tokens afterwards. For a line of 10 MB that takes many
seconds and gigabytes, and all but some hundred tokens are thrown away. Here only the start of the text is tokenized:

    한 남자가 밥을 먹는다. 한 남자가 밥을 먹는다. 한 남자가 ...            10 MB
    |------- first try --------|
    |---- max_seq_length tokens ----|-- longest word --|               enough: the rest of the text changes nothing

This is exact where BERT's rules hold: text is divided at white space and punctuation, whatever stands farther off, so the
end of a text decides about nothing before the word that it is in. Other tokenizers get their texts whole.
"""

import re
from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers

CHARACTERS_PER_TOKEN = 8  # so many are enough for most texts: 2 are usual in Korean, 5 in English
# To BERT's rules a run of one kind, however long, is one unknown word, one gap or nothing; an ideograph is a word of its own.
ENDLESS_RUNS = (
    "[0-9A-Za-zÀ-ɏЀ-ҁҊ-ӿ\u1100-\u11ffぁ-ゖァ-ヺーㄱ-ㆎ가-힣]",
    "[ \t\r\n\u3000]",
    "[\u200b-\u200d\u2060\ufeff]",
)
BRACKETED = re.compile(r"\[\S{1,30}\]|<\S{1,30}>")  # special tokens such as [MASK] or <mask>


def encode_starts(backend: Tokenizer, texts: Sequence[str], max_seq_length: int) -> list[Encoding]:
    """Tokenize texts, long ones only as far as needed.

    The start of a text has the first tokens of the whole if it has as many more as a word can have. If it has not, a
    start that is eight times as long is tried.

    Returns what the backend, which cuts to `max_seq_length` tokens, makes of the whole of each text: the ids, and in
    `overflowing` whether it was cut.
    """
    longest = longest_word(backend)
    if longest is None:
        return backend.encode_batch(texts)
    size = CHARACTERS_PER_TOKEN * (max_seq_length + longest)  # characters
    encodings = backend.encode_batch([text[:size] for text in texts])
    special = backend.num_special_tokens_to_add(is_pair=False)
    for row, text in enumerate(texts):
        start = size
        while start < len(text) and sum(len(part) - special for part in encodings[row].overflowing) < longest:
            # Few tokens from many characters: runs longer than any word. Cut to a length that still is, they mean the same.
            runs = "|".join(f"{run}{{{longest},}}" for run in ENDLESS_RUNS)
            text = re.sub(runs, lambda run: run[0][:longest], text)
            start *= CHARACTERS_PER_TOKEN
            encodings[row] = backend.encode(text[:start])
    return encodings


def longest_word(backend: Tokenizer) -> int | None:
    """More characters, and so more tokens, than a word or special token can have; None without BERT's rules.

    A word of too many characters is one unknown token, so there is a bound. Special tokens in brackets do not disturb the
    rules; other added tokens, such as one with a space in it, might.
    """
    added = backend.get_added_tokens_decoder().values()
    if (
        isinstance(backend.model, models.WordPiece)
        and isinstance(backend.normalizer, normalizers.BertNormalizer)
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and all(BRACKETED.fullmatch(token.content) for token in added)
    ):
        return int(backend.model.max_input_chars_per_word) + 100  # a bracketed token cut in two has fewer
    return None
