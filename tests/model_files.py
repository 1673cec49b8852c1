"""Model folders for tests of loading: their files taken apart and put together again, whole or damaged."""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minisbert import SentenceEncoder
from minisbert.errors import ModelError
from tests.tiny import VOCABULARY, tiny_folder


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: dict[str, Any] | bytes, body: bytes) -> bytes:
    """A safetensors file with this header, which may be any bytes."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + body


def edit_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a folder's model.safetensors and leave the data as it is."""
    path = folder / "model.safetensors"
    header, body = split_safetensors(path.read_bytes())
    change(header)
    path.write_bytes(join_safetensors(header, body))


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def refusal(folder: Path) -> str:
    """The message with which a model folder is refused; it must be a single line that a terminal can show."""
    with pytest.raises(ModelError) as caught:
        SentenceEncoder.from_pretrained(folder, device="cpu")
    message = str(caught.value)
    assert message.isprintable()
    return message


def xlm_roberta_folder(path: Path) -> Path:
    """A tiny model as XLM-RoBERTa is published: a Unigram tokenizer in tokenizer.json, no vocab.txt."""
    tiny_folder(path, "roberta")
    for name in ("vocab.txt", "special_tokens_map.json"):
        (path / name).unlink()
    edit_json(path / "config.json", lambda config: config.update(model_type="xlm-roberta"))
    names = {"[CLS]": "<s>", "[PAD]": "<pad>", "[SEP]": "</s>", "[UNK]": "<unk>", "[MASK]": "<mask>"}
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 38, "unk_token": "<unk>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    words = [word.removeprefix("##") if word.startswith("##") else f"▁{word}" for word in VOCABULARY[5:]]
    vocabulary = [*names.values(), *words]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": content, "special": True, "normalized": False}
            | {"single_word": False, "lstrip": content == "<mask>", "rstrip": False}
            for number, content in enumerate(names.values())
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap("①", "밥")},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {
                content: {"id": content, "ids": [number], "tokens": [content]} for number, content in ((0, "<s>"), (2, "</s>"))
            },
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[token, -float(number)] for number, token in enumerate(vocabulary)],
            "byte_fallback": False,
        },
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return path


def charsmap(character: str, replacement: str) -> str:
    """The table of replacements that SentencePiece compiles, with one in it.

    The table is a trie over UTF-8 bytes, a "double array" of 32-bit units (github.com/s-yata/darts-clone), then all
    replacements, each ended by a zero byte. The child of the unit at i for byte b is at i ^ offset ^ b; the unit at
    i ^ offset is the leaf, if there is one, and says where the replacement begins.
    """
    units = [0] * 256
    position = 0
    for base, byte in enumerate(character.encode()):
        units[position] |= (position ^ base) << 10  # to the children, which lie at base ^ byte
        position = base ^ byte
        units[position] = byte
    leaf = len(character.encode())
    units[position] |= (position ^ leaf) << 10 | 1 << 8
    units[leaf] = 1 << 31  # the first replacement
    table = struct.pack("<I256I", 4 * len(units), *units)
    return base64.b64encode(table + replacement.encode() + b"\0").decode()
