"""Mutations of the settings files of tiny folders, tried on sentence-transformers and on us.

For each, our vectors must be those of the reference to 1e-5, or our answer must be a refusal. Texts may be cut where the model
ends, with a warning. Cases in which the reference fails and we do not are counted apart.

    python -m tests.parity.settings_fuzz 2000 [SEED]
"""

import json
import logging
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers

from minisbert import SentenceEncoder
from minisbert.errors import InputError, ModelError
from tests.model_files import xlm_roberta_folder
from tests.tiny import SENTENCES, tiny_folder

TEXTS = [*SENTENCES, "a B á 中밥 [SEP] 밥 <s> 밥", "밥  \n", " A ", "", " ".join(SENTENCES * 4)]
STRIPPED = {"__type": "AddedToken", "content": "남자", "lstrip": True, "rstrip": True}
TOKENS: list[Any] = ["[CLS]", "밥", "a", "[UNK]", "<s>", STRIPPED, None, "없다"]
SIDES: list[Any] = ["left", "right", None, "up"]
BOTH: list[Any] = [True, False]
FLAGS: list[Any] = [True, False, None, 0, "true"]
LENGTHS: list[Any] = [5, 7, 40, 512, 10**30, None, 0, "9", 2]
CUT = {"max_length": 6, "strategy": "LongestFirst", "stride": 0}
PAD = {"pad_id": 0, "pad_type_id": 0, "pad_token": "a", "pad_to_multiple_of": None}
PADDED = {**PAD, "strategy": {"Fixed": 8}, "direction": "Left"}
VALUES: dict[str, dict[str, list[Any]]] = {
    "tokenizer_config.json": {
        **dict.fromkeys(("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space"), FLAGS),
        **dict.fromkeys(("split_special_tokens", "clean_up_tokenization_spaces", "split_by_punct"), FLAGS),
        **dict.fromkeys(("keep_accents", "do_basic_tokenize", "add_bos_token", "legacy"), FLAGS),
        **dict.fromkeys(("model_max_length", "max_len", "max_length", "stride"), LENGTHS),
        **dict.fromkeys(("cls_token", "sep_token", "unk_token", "pad_token", "mask_token", "bos_token", "new_token"), TOKENS),
        **dict.fromkeys(("truncation_side", "padding_side"), SIDES),
        "tokenizer_class": ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "XLMRobertaTokenizer", None],
        "additional_special_tokens": [
            ["밥"],
            [],
            ["남자", "없다"],
            None,
            [{"__type": "AddedToken", "content": "a", "rstrip": True}],
        ],
        "extra_special_tokens": [["밥"], [], {"rice": "밥"}, None],
        "added_tokens_decoder": [{}, {"7": {"content": "밥"}}, {"99": {"content": "##을", "special": True}}],
        "unknown": [1, {"a": 2}],
    },
    "special_tokens_map.json": {
        **dict.fromkeys(("cls_token", "sep_token", "unk_token", "eos_token"), TOKENS),
        "additional_special_tokens": [["밥"], [], ["남자", "없다"]],
        "extra_special_tokens": [["밥"], []],
    },
    "tokenizer.json": {
        "truncation": [None, *({**CUT, "direction": direction} for direction in ("Left", "Right"))],
        "padding": [None, PADDED],
    },
    "added_tokens.json": {"밥": [5, 99], "없다": [60], "[CLS]": [2]},
    "sentence_bert_config.json": {
        "max_seq_length": LENGTHS,
        "do_lower_case": FLAGS,
        "tokenizer_args": [{}, None, {"model_max_length": 6}, {"do_lower_case": True}, {"truncation_side": "left"}],
        "processor_kwargs": [{}, None, {"model_max_length": 7}, {"strip_accents": True}],
        "config_args": [{}, None, {"num_hidden_layers": 1}, {"hidden_act": "relu"}],
        "config_kwargs": [{}, {"layer_norm_eps": 0.5}],
        "model_args": [{}, None, {"torch_dtype": "float32"}, {"dtype": "float32"}, {"attn_implementation": "eager"}],
        "processing_kwargs": [{}, None, {"text": {"max_length": 6}}, {"text": {"padding": True}}],
        "transformer_task": ["feature-extraction", "fill-mask", None],
        "modality_config": [{"text": {"method": "forward", "method_output_name": "last_hidden_state"}}],
        "module_output_name": ["token_embeddings", "sentence_embedding"],
        "unpad_inputs": [True, False, None],
        "query_length": [6, None],
    },
    "config_sentence_transformers.json": {
        "truncate_dim": [8, 24, 1, None, 0, 99, -3, "8"],
        "prompts": [{}, None, {"query": "a ", "": "b"}, {"query": "a "}],
        "default_prompt_name": ["query", None, "other"],
        "similarity_fn_name": ["dot", None, "cosine", "other"],
        "model_type": ["SentenceTransformer", "SparseEncoder", None],
        "unknown": [1],
    },
    "1_Pooling/config.json": {
        **dict.fromkeys((f"pooling_mode_{name}_tokens" for name in ("mean", "max", "weightedmean")), BOTH),
        **dict.fromkeys(("pooling_mode_cls_token", "pooling_mode_lasttoken"), BOTH),
        "pooling_mode": ["mean", "cls", ["cls", "max"], ["mean", "cls"], "other", [], None],
        "include_prompt": [True, False, None],
        "embedding_dimension": [24, 7],
    },
}


def mutate(folder: Path, random_: random.Random) -> dict[str, dict[str, Any]]:
    """Set or take away up to four keys, and return what was done."""
    done: dict[str, dict[str, Any]] = {}
    for _ in range(random_.randint(1, 4)):
        name = random_.choice([*VALUES, "tokenizer_config.json", "tokenizer_config.json"])
        path = folder / name
        content = json.loads(path.read_bytes()) if path.exists() else {}
        if random_.random() < 0.2 and content:
            key = random_.choice(sorted(content))
            content.pop(key)
            done.setdefault(name, {})[key] = "taken away"
        else:
            key = random_.choice(list(VALUES[name]))
            done.setdefault(name, {})[key] = content[key] = random_.choice(VALUES[name][key])
        path.write_text(json.dumps(content))
    if random_.random() < 0.05:
        (folder / "tokenizer_config.json").unlink()
        done["tokenizer_config.json"] = {"*": "taken away"}
    return done


def ours(folder: Path) -> tuple[Any, str]:
    """Vectors, or None for a refusal; and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            vectors = SentenceEncoder.from_pretrained(folder, device="cpu").encode(TEXTS)
        except (ModelError, InputError) as error:
            return None, str(error)
    return vectors, " ".join(str(each.message) for each in caught)


def theirs(folder: Path) -> Any:
    """Vectors, or None for an error of any kind."""
    try:
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        return model.encode(TEXTS, show_progress_bar=False, batch_size=1)  # left padding would move the positions of BERT
    except Exception:
        return None


def fuzz(cases: int, seed: int = 0, report: Callable[[str], object] = print) -> Counter[str]:
    """Try so many cases: how often each outcome was seen."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name)
        for model_type in ("bert", "roberta", "deberta-v2"):
            (tiny_folder(whole / model_type, model_type) / "special_tokens_map.json").unlink()  # so that others count
        xlm_roberta_folder(whole / "xlm-roberta")
        for case in range(cases):
            random_ = random.Random(f"{seed} {case}")
            model_type = random_.choice(["bert", "bert", "roberta", "deberta-v2", "xlm-roberta"])
            folder = whole / "case"
            shutil.copytree(whole / model_type, folder)
            done = mutate(folder, random_)
            (found, said), expected = ours(folder), theirs(folder)
            shutil.rmtree(folder)
            if found is None:
                outcome = "refused by both" if expected is None else "refused by us"
            elif expected is None:
                outcome = "an error in the reference alone"
            elif found.shape == expected.shape and np.allclose(found, expected, atol=1e-5):
                outcome = "equal"
            else:
                outcome = "cut, and said so" if "texts are cut to that" in said else "DIFFERENT"
            outcomes[outcome] += 1
            if outcome not in ("equal", "refused by both"):
                report(f"{case} {outcome}: {model_type} {json.dumps(done, ensure_ascii=False)} {said}")
    return outcomes


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(dict(fuzz(*(int(argument) for argument in sys.argv[1:]))))
