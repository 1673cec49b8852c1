"""What a tokenizer.json must not contain: parts that make the `tokenizers` package panic, or run forever, on some text.

Neither ends in an exception that could be caught, so the parts are looked at before the package sees them. The published
tokenizers of the supported models contain none of this.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from minisbert.errors import ModelError

# A pattern in a tokenizer.json may be one character or class, perhaps repeated: the published tokenizers need no more
# (spaces that are made one), and nothing in it can backtrack.
HARMLESS_PATTERN = re.compile(r"(?:[^\\^$.|?*+()\[\]{}]|\\[nrstdw]|\[[^\[\]]+\])(?:\+|\{[1-9]\d{0,2},\})?")


def check_steps(steps: list[Any]) -> None:
    """Refuse what makes the package panic or run forever.

    Args:
        steps: the normalizer, pre-tokenizer, post-processor and decoder of a tokenizer.json, parsed.

    Raises:
        ModelError: one of them, or a part of it, is of that kind.
    """
    todo = list(steps)
    around_texts = 0
    while todo:
        step = todo.pop()
        if isinstance(step, list):
            todo += step
        if not isinstance(step, dict):
            continue
        todo += step.values()
        pattern, charsmap = step.get("Regex"), step.get("precompiled_charsmap")
        if isinstance(pattern, str) and not HARMLESS_PATTERN.fullmatch(pattern):
            raise ModelError(f"tokenizer.json: the pattern {pattern!r:.80} is not supported: it could run forever")
        if step.get("type") == "Precompiled" and not (isinstance(charsmap, str) and _is_sound(charsmap)):
            raise ModelError("tokenizer.json: its precompiled_charsmap is damaged")
        if step.get("type") == "FixedLength":
            raise ModelError("tokenizer.json: the pre-tokenizer FixedLength is not supported")
        if step.get("type") == "TemplateProcessing" and not _is_complete(step):
            raise ModelError("tokenizer.json: its TemplateProcessing is damaged")
        around_texts += step.get("type") in ("TemplateProcessing", "BertProcessing", "RobertaProcessing")
    if around_texts > 1:  # a second template fails on what the first has made of a text
        raise ModelError("tokenizer.json: puts special tokens around a text more than once, which is not supported")


def _is_complete(template: Mapping[str, Any]) -> bool:
    """Whether the special tokens around a text are all told, and the text is there once."""
    try:
        pieces = [*template["single"], *template["pair"]]
        names = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
        known = all(name in template["special_tokens"] for name in names)
        return known and [piece["Sequence"]["id"] for piece in template["single"] if "Sequence" in piece] == ["A"]
    except (KeyError, TypeError):
        return False


def _is_sound(charsmap: str) -> bool:
    """Whether no text can lead out of the table of replacements that SentencePiece compiles.

    The table is a trie over UTF-8 bytes, a "double array" of 32-bit units (github.com/s-yata/darts-clone), then all
    replacements, each ended by a zero byte. The child of the unit at i for byte b is at i ^ offset ^ b; the unit at
    i ^ offset is the leaf, if there is one, and says where the replacement begins.
    """
    try:
        data = base64.b64decode(charsmap, validate=True)
        size = int.from_bytes(data[:4], "little")
        units = np.frombuffer(data, "<u4", count=size // 4, offset=4).astype(np.int64)
        replacements = np.frombuffer(data[4 + size :].decode("utf-8").encode("utf-8"), np.uint8)
    except ValueError:  # not base64, cut off, not UTF-8
        return False
    if not 0 < size < len(data) - 4 or size % 1024 or replacements[-1]:
        return False
    offsets = (units >> 10) << ((units >> 9 & 1) * 8)
    children = np.arange(len(units)) ^ offsets
    inner = units < 1 << 31  # others are leaves, which no byte leads to
    inner[0] = True  # the root
    if ((children[inner] | 255) >= len(units)).any():
        return False
    has_leaf = inner & (units >> 8 & 1 == 1)
    starts = units[children[has_leaf]] & ((1 << 31) - 1)
    return bool((starts < len(replacements)).all() and not replacements[starts[starts > 0] - 1].any())
