"""Tiny models with random weights and a small Korean vocabulary: what most tests run on.

The weights are drawn with standard deviation 0.2: with the usual 0.02, activations are so small that GELU is nearly
linear and attention nearly uniform, and many a mistake would hide below the tolerance.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minisbert.models.pooling import Pooling
from minisbert.models.registry import ARCHITECTURES
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.storage.folder import ModelFolder
from minisbert.text.tokenizer import Tokenizer
from minisbert.text.tokenizer_files import load_backend

STANDARD_DEVIATION = 0.2
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "한 두 남자 여자 아이 고양이 밥 빵 먹 마시 달리 가 는 은 이 를 을 에서 고 있 다 물 길 날씨 춥 덥".split()
PIECES = ["##" + word for word in "가 는 은 이 를 을 에서 고 있 다 는다 린다 신다 요 어 니".split()]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS, *PIECES, "a", "b", "##a", "##b", ".", "?", ","]

SENTENCES = [
    "한 남자가 밥을 먹는다.",
    "두 아이가 길을 달린다.",
    "고양이는 물을 마신다.",
    "날씨가 춥다.",
    "여자가 길에서 빵을 먹고 있다.",
    "밥",
]

COMMON = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "hidden_act": "gelu",
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
DEBERTA = {
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "position_buckets": 8,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}


@dataclass(frozen=True)
class Row:
    """What the tests must know of an architecture; every test that is not about a single one runs on each row."""

    fields: dict[str, Any]  # a tiny config.json
    # Another value for every field that it computes with, and the fields whose other value changes nothing here.
    other_values: dict[str, Any]
    without_effect: frozenset[str] = frozenset()
    hidden_dropout: str = "hidden_dropout_prob"  # what the fields are called
    attention_dropout: str = "attention_probs_dropout_prob"
    # What dropout falls on in a layer, in this order: "tokens" (B, T, D), "scores" (B, H, T, T), "table" (R, D).
    layer_dropouts: tuple[str, ...] = ("scores", "tokens", "tokens")

    def dropout(self, hidden: float, attention: float) -> dict[str, Any]:
        """The fields that set these probabilities."""
        return {self.hidden_dropout: hidden, self.attention_dropout: attention}


OTHER_VALUES = {
    "hidden_act": "relu",
    "layer_norm_eps": 0.1,
    "num_attention_heads": 4,
    "pad_token_id": 9,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 12,
    "type_vocab_size": 3,
    "vocab_size": 41,
    "hidden_size": 48,
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5,
}
DEBERTA_OTHER_VALUES = {
    "max_relative_positions": 20,
    "position_buckets": 6,
    "pos_att_type": ["c2p"],
    "share_att_key": False,
    "norm_rel_ebd": "none",
    "position_biased_input": True,
    "relative_attention": False,
}
ROBERTA = {
    "max_position_embeddings": 42,  # two are never reached: 40 tokens
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}
# pad_token_id is where positions start in RoBERTa; elsewhere it only names an embedding without gradient. And no text here
# has the segments that there may be besides.
ROWS = {
    "bert": Row({"model_type": "bert", **COMMON}, OTHER_VALUES, frozenset({"pad_token_id", "type_vocab_size"})),
    "roberta": Row({"model_type": "roberta", **COMMON, **ROBERTA}, OTHER_VALUES, frozenset({"type_vocab_size"})),
    "deberta-v2": Row(
        {"model_type": "deberta-v2", **COMMON, **DEBERTA},
        OTHER_VALUES | DEBERTA_OTHER_VALUES,
        frozenset({"pad_token_id"}),
        layer_dropouts=("table", "scores", "tokens", "tokens"),
    ),
}
CONFIGS = {model_type: row.fields for model_type, row in ROWS.items()}
NO_DROPOUT = {name: 0.0 for row in ROWS.values() for name in (row.hidden_dropout, row.attention_dropout)}


def tokenizer_files(model_type: str = "bert") -> dict[str, bytes]:
    """The tokenizer files of a tiny model; RoBERTa has its padding token at id 1, as the published models do."""
    vocabulary = list(VOCABULARY)
    if model_type in ("roberta", "xlm-roberta"):
        vocabulary[:5] = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": False,
        "model_max_length": 40,
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},
    }
    files = {"vocab.txt": "\n".join(vocabulary).encode(), "tokenizer_config.json": json.dumps(settings).encode()}
    backend = load_backend(files, segments_of_pairs=model_type == "bert")
    return {**files, "tokenizer.json": backend.to_str().encode()}


def tiny_model(
    model_type: str = "bert", seed: int = 0, pooling: str = "mean", normalize: bool = False, **fields: Any
) -> SentenceEncoder:
    """A tiny model in memory; `fields` override those of config.json."""
    config_fields = {**CONFIGS[model_type], **fields}
    architecture = ARCHITECTURES[model_type]
    config = architecture.read_config(config_fields)
    encoder = architecture.encoder(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        parameter.data.normal_(std=STANDARD_DEVIATION, generator=generator)
    files = tokenizer_files(model_type)
    folder = ModelFolder(
        config=config_fields, tokenizer_files=files, tokenizer_config={}, pooling_mode=pooling, normalize=normalize
    )
    backend = load_backend(files, segments_of_pairs=model_type == "bert")
    tokenizer = Tokenizer(backend, config.pad_token_id, config.longest_text, "[UNK]")
    return SentenceEncoder(encoder, Pooling(pooling), tokenizer, folder).eval()


def tiny_folder(path: Path, model_type: str = "bert", **options: Any) -> Path:
    """A tiny model saved as a folder; `options` as in `tiny_model`."""
    tiny_model(model_type, **options).save_pretrained(path)
    return path
