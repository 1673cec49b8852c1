"""Proves that sentence-transformers and we make the same vectors of folders whose settings say something unusual.

Settings are tried by hand, by the table of those without effect, and by random mutations (settings_fuzz.py).
"""

import json
import warnings

import numpy as np
import pytest

sentence_transformers = pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers")

import tokenizers

from minisbert import SentenceEncoder
from minisbert.storage.settings import WITHOUT_EFFECT
from tests.model_files import edit_json, xlm_roberta_folder
from tests.parity.settings_fuzz import fuzz
from tests.tiny import PIECES, SENTENCES, SPECIAL_TOKENS, WORDS, tiny_folder

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]
TEXTS = [*SENTENCES, "a B á 中밥 [SEP] 밥", "밥  \n", " A ", " ".join(SENTENCES * 4)]


def agree(folder, again=None):
    """Both libraries' vectors of one folder, and of the same folder saved by us."""
    ours = SentenceEncoder.from_pretrained(folder, device="cpu")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    if again is not None:
        ours.save_pretrained(again)
        saved = sentence_transformers.SentenceTransformer(str(again), device="cpu", local_files_only=True)
        np.testing.assert_allclose(ours.encode(TEXTS), saved.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta-v2"])
@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", {"do_lower_case": True}),
        ("tokenizer_config.json", {"strip_accents": True}),
        ("tokenizer_config.json", {"do_lower_case": True, "strip_accents": False}),
        ("tokenizer_config.json", {"tokenize_chinese_chars": False}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}),
        ("tokenizer_config.json", {"truncation_side": "left", "model_max_length": 9}),
        (
            "tokenizer.json",
            {"truncation": {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}, "padding": None},
        ),
        ("tokenizer_config.json", {"split_special_tokens": True}),
        ("tokenizer_config.json", {"additional_special_tokens": ["밥"]}),
        ("tokenizer_config.json", {"extra_special_tokens": [{"__type": "AddedToken", "content": "남자", "lstrip": True}]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"rice": "밥"}, "goods_token": "남자"}),
        ("tokenizer_config.json", {"cls_token": "a", "unk_token": "b", "sep_token": "."}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"30": {"content": "밥"}, "9": {"content": "Ω", "special": True}}}),
        ("special_tokens_map.json", {"additional_special_tokens": ["밥"], "cls_token": "a"}),
        ("added_tokens.json", {"밥": 99}),
        ("config_sentence_transformers.json", {"truncate_dim": 8}),
        ("sentence_bert_config.json", {"max_seq_length": 9, "processor_kwargs": {"model_max_length": 7}}),
        ("sentence_bert_config.json", {"max_seq_length": 9, "tokenizer_args": {"do_lower_case": True}}),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 6}}}),
    ],
)
def test_one_setting(model_type, file, values, tmp_path):
    folder = tiny_folder(tmp_path / "model", model_type)
    (folder / "special_tokens_map.json").unlink()  # which would win over tokenizer_config.json
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    edit_json(folder / file, lambda settings: settings.update(values))
    agree(folder, tmp_path / "again")


@pytest.mark.parametrize("there", [["밥"], {"rice": "밥"}, []])
@pytest.mark.parametrize("here", [["남자"], []])
def test_extra_tokens_of_two_files(there, here, tmp_path):
    folder = tiny_folder(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", lambda settings: settings.update(extra_special_tokens=there))
    (folder / "special_tokens_map.json").write_text(json.dumps({"extra_special_tokens": here}), encoding="utf-8")
    agree(folder, tmp_path / "again")


@pytest.mark.parametrize("values", [{}, {"add_prefix_space": False}])
@pytest.mark.parametrize("metaspace_alone", [False, True])
def test_xlm_roberta(values, metaspace_alone, tmp_path):
    folder = xlm_roberta_folder(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", lambda settings: settings.update(values))
    if metaspace_alone:
        edit_json(folder / "tokenizer.json", lambda each: each.update(pre_tokenizer=each["pre_tokenizer"]["pretokenizers"][1]))
    agree(folder)


def test_without_a_post_processor(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    edit_json(folder / "tokenizer.json", lambda description: description.update(post_processor=None))
    agree(folder)


@pytest.mark.parametrize("values", [{}, {"do_lower_case": True}, {"add_prefix_space": False}, {"extra_special_tokens": ["을"]}])
def test_deberta_with_a_sentencepiece_vocabulary(values, tmp_path):
    """As transformers 5 saves it."""
    folder = tiny_folder(tmp_path / "model", "deberta-v2")
    for name in ("vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink()
    vocabulary = [(token, 0.0) for token in SPECIAL_TOKENS]
    vocabulary += [("▁" + word, -float(number)) for number, word in enumerate(WORDS)]
    vocabulary += [(piece.removeprefix("##"), -0.5 - number) for number, piece in enumerate([*PIECES, "##a", "##▁"])]
    transformers.DebertaV2Tokenizer(vocab=vocabulary).save_pretrained(folder)
    edit_json(folder / "tokenizer_config.json", lambda settings: settings.update(values))
    agree(folder, tmp_path / "again")


@pytest.mark.parametrize("add_prefix_space", [None, False, True])
def test_roberta_with_its_own_tokenizer(add_prefix_space, tmp_path):
    """Its settings win over the pre_tokenizer of tokenizer.json."""
    folder = tiny_folder(tmp_path / "model", "roberta", vocab_size=300)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: number for number, token in enumerate([*tokens, "Ġa", "ab"])}
    transformers.RobertaTokenizer(vocab=vocabulary, merges=[("Ġ", "a"), ("a", "b")]).save_pretrained(folder)
    if add_prefix_space is not None:
        edit_json(folder / "tokenizer_config.json", lambda settings: settings.update(add_prefix_space=add_prefix_space))
    for name in ("vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink()
    agree(folder, tmp_path / "again")


NO_FLAGS = {"auto_map", "chat_control_tokens", "fast_tokenizer_files", "init_inputs", "model_input_names", "padding_side"}


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT["tokenizer_config.json"].keys() - NO_FLAGS - {"processor_class"}))
def test_what_has_no_effect_there_either(key, tmp_path):
    folder = tiny_folder(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", lambda settings: settings.update({key: True}))
    agree(folder)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta-v2"])
def test_fields_of_config_that_transformers_writes_are_known(model_type, tmp_path):
    """Those that the reference adds to a config.json by itself: none warns, and both libraries load the file."""
    folder = tiny_folder(tmp_path / "model", model_type)
    transformers.AutoConfig.from_pretrained(folder).save_pretrained(folder)
    written = transformers.AutoConfig.from_pretrained(folder).to_dict()  # with the fields that have their default values
    edit_json(folder / "config.json", lambda fields: fields.update({**written, **fields}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SentenceEncoder.from_pretrained(folder, device="cpu")
    agree(folder)


TYPED = {  # the reference takes these only if their values are of the right type
    **dict.fromkeys(("use_cache", "tie_word_embeddings"), True),
    "initializer_range": 0.5,
    **dict.fromkeys(("dtype", "torch_dtype"), "float32"),
    **{name: {} for name in ("id2label", "label2id")},
    **dict.fromkeys(("attn_implementation", "_attn_implementation"), "eager"),
}


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT["config.json"].keys() - {"auto_map"}))
def test_fields_of_config_that_have_no_effect_there_either(key, tmp_path):
    folder = tiny_folder(tmp_path / "model")
    edit_json(folder / "config.json", lambda fields: fields.update({key: TYPED.get(key, 1)}))
    agree(folder)


def test_random_mutations():
    lines = []
    outcomes = fuzz(100, seed=7, report=lines.append)
    assert outcomes["equal"] > 40
    assert not outcomes["DIFFERENT"], "\n".join(lines)
