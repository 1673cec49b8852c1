"""Proves that every setting of a model folder is obeyed, known to be without effect, or refused by name.

The right values are worked out by hand from what the setting says; tests/parity/test_settings.py asks the reference for the
same cases.
"""

import json
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from minisbert import SentenceEncoder
from minisbert.errors import ModelError
from minisbert.storage import settings
from tests.model_files import edit_json, refusal, xlm_roberta_folder
from tests.tiny import CONFIGS, SENTENCES, VOCABULARY, tiny_folder

CONFIG = "config.json"
TOKENIZER = "tokenizer_config.json"
SENTENCE = "sentence_bert_config.json"
MODEL = "config_sentence_transformers.json"
SPECIAL = "special_tokens_map.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder that loads; tests change copies of it."""
    return tiny_folder(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "model"))


def load(folder: Path) -> SentenceEncoder:
    return SentenceEncoder.from_pretrained(folder, device="cpu")


def change(folder: Path, file: str, **values: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_bytes()) if path.exists() else {}), **values}))


def ids(model: SentenceEncoder, text: str) -> list[int]:
    return model.tokenizer([text]).row(0).tolist()


# The table


def test_a_key_is_in_one_table():
    for file, obeyed in settings.OBEYED.items():
        tables = (obeyed, settings.WITHOUT_EFFECT[file], settings.ONLY[file])
        keys = [key for table in tables for key in table]
        assert len(keys) == len(set(keys)), file


def test_an_unknown_key_warns_once_by_name(folder):
    for file in (CONFIG, TOKENIZER, SENTENCE, MODEL, SPECIAL):
        change(folder, file, wholly_new=1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load(folder)
        assert [("wholly_new" in str(each.message), file in str(each.message)) for each in caught] == [(True, True)]
        edit_json(folder / file, lambda value: value.pop("wholly_new"))


@pytest.mark.parametrize("model_type", CONFIGS)
def test_no_field_that_an_architecture_reads_is_unknown(model_type, tmp_path):
    folder = tiny_folder(tmp_path / "model", model_type)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder)


@pytest.mark.parametrize("seed", range(20))
def test_random_subsets_of_the_table(whole, folder, seed):
    """Any keys without effect, with any values, and any supported values of the others: the same vectors, and not a word."""
    chance = random.Random(seed)
    for file in settings.OBEYED:
        idle = {key: chance.choice([True, False, 7, "x", None]) for key in settings.WITHOUT_EFFECT[file]}
        idle |= {key: chance.choice(supported) for key, (supported, _) in settings.ONLY[file].items()}
        change(folder, file, **{key: idle[key] for key in chance.sample(sorted(idle), chance.randint(0, len(idle)))})
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), load(whole).encode(SENTENCES))


@pytest.mark.parametrize(("file", "key"), [(file, key) for file, table in settings.ONLY.items() for key in table])
def test_other_values_of_restricted_keys_are_refused(folder, file, key):
    change(folder, file, **{key: "quite another"})
    assert f"{file}: {key}" in refusal(folder)


def test_keys_without_effect_change_nothing(whole, folder):
    values = {"padding_side": "left", "chat_template": "{{ x }}", "auto_map": {"AutoTokenizer": ["a.b", None]}}
    change(folder, TOKENIZER, **values, max_length=3, stride=1, clean_up_tokenization_spaces=True)
    change(folder, SENTENCE, unpad_inputs=True, model_args={"torch_dtype": "bfloat16"})
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), load(whole).encode(SENTENCES))


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        (CONFIG, "position_embedding_type", "relative_key"),
        (CONFIG, "is_decoder", True),
        (CONFIG, "quantization_config", {"quant_method": "bitsandbytes"}),
        (TOKENIZER, "split_by_punct", True),
        (TOKENIZER, "truncation_side", "top"),
        (SENTENCE, "transformer_task", "text-generation"),
        (SENTENCE, "query_length", 16),
        (SENTENCE, "model_args", {"num_hidden_layers": 1}),
        (SENTENCE, "tokenizer_args", [1]),
        (SENTENCE, "processing_kwargs", {"text": {"padding_side": "left"}}),
        (MODEL, "model_type", "SparseEncoder"),
        (MODEL, "truncate_dim", 0),
        (MODEL, "truncate_dim", "8"),
    ],
)
def test_refused_by_name(folder, file, key, value):
    change(folder, file, **{key: value})
    assert key in refusal(folder)


def test_truncate_dim_cuts_vectors_also_after_saving(whole, folder, tmp_path):
    change(folder, MODEL, truncate_dim=8)
    full = load(whole).encode(SENTENCES)
    model = load(folder)
    model.save_pretrained(tmp_path / "again")
    for each in (model, load(tmp_path / "again")):
        np.testing.assert_allclose(each.encode(SENTENCES), full[:, :8], atol=1e-6)
        np.testing.assert_allclose(each.encode(SENTENCES, truncate_dim=20), full[:, :20], atol=1e-6)  # the call wins
        assert each.embedding_dimension == 8


def test_truncation_side_says_which_end_is_cut(folder):
    change(folder, SENTENCE, max_seq_length=4)
    assert ids(load(folder), "밥을 먹는다") == [2, *ids_of("밥", "##을"), 3]
    change(folder, TOKENIZER, truncation_side="left")
    assert ids(load(folder), "밥을 먹는다") == [2, *ids_of("먹", "##는다"), 3]
    assert ids(load(folder), "밥을 " * 5000 + "먹는다") == [2, *ids_of("먹", "##는다"), 3]


def test_tokenizer_json_says_which_end_is_cut_if_no_setting_does(folder):
    change(folder, SENTENCE, max_seq_length=4)
    change(folder, "tokenizer.json", truncation={"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0})
    assert ids(load(folder), "밥을 먹는다") == [2, *ids_of("먹", "##는다"), 3]
    change(folder, TOKENIZER, truncation_side="right")
    assert ids(load(folder), "밥을 먹는다") == [2, *ids_of("밥", "##을"), 3]


def ids_of(*tokens: str) -> list[int]:
    return [VOCABULARY.index(token) for token in tokens]


def test_split_special_tokens_makes_them_text(folder):
    assert ids(load(folder), "밥 [SEP]") == [2, *ids_of("밥"), 3, 3]
    change(folder, TOKENIZER, split_special_tokens=True)
    assert ids(load(folder), "밥 [SEP]") == [2, *ids_of("밥"), 1, 1, 1, 3]  # "[", "sep" and "]", all unknown


@pytest.mark.parametrize(
    ("length", "values"),
    [
        (7, {"tokenizer_args": {"model_max_length": 7}}),  # wins over max_seq_length
        (8, {"processor_kwargs": {"model_max_length": 8}}),
        (9, {"processing_kwargs": {"text": {"max_length": 9}}}),
        (40, {"max_seq_length": None}),  # then model_max_length of tokenizer_config.json
    ],
)
def test_lengths_in_nested_settings(folder, length, values, tmp_path):
    change(folder, SENTENCE, **values)
    model = load(folder)
    model.save_pretrained(tmp_path / "again")
    assert model.max_seq_length == load(tmp_path / "again").max_seq_length == length


def test_a_length_that_the_model_cannot_do_is_said(folder):
    change(folder, SENTENCE, max_seq_length=10**30)  # where a tokenizer says this, it has no limit of its own
    with pytest.warns(UserWarning, match="this model was made for 40, and texts are cut to that"):
        assert load(folder).max_seq_length == 40


# tokenizer_config.json against tokenizer.json


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("a", "[UNK]", "[UNK]")),  # tokenizer.json and the settings say the same: nothing is changed
        ({"do_lower_case": True}, ("a", "b", "a")),
        ({"strip_accents": True}, ("a", "[UNK]", "a")),
        ({"do_lower_case": True, "strip_accents": False}, ("a", "b", "[UNK]")),
        ({"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}, ("a", "b", "a")),
        ({"tokenizer_class": None, "do_lower_case": True}, ("a", "b", "a")),  # BERT's is the usual one of a BERT
        ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}, ("a", "[UNK]", "[UNK]")),  # file as it is
    ],
)
def test_the_settings_of_bert_win_over_tokenizer_json(folder, values, expected, tmp_path):
    change(folder, TOKENIZER, **values)
    model = load(folder)
    model.save_pretrained(tmp_path / "again")
    for each in (model, load(tmp_path / "again")):
        assert ids(each, "a B á") == [2, *ids_of(*expected), 3]


def test_absent_do_lower_case_is_true_to_bert(folder):
    edit_json(folder / TOKENIZER, lambda value: value.pop("do_lower_case"))
    assert ids(load(folder), "a B") == [2, *ids_of("a", "b"), 3]


def test_tokenize_chinese_chars(folder):
    assert ids(load(folder), "밥中밥") == [2, *ids_of("밥", "[UNK]", "밥"), 3]
    change(folder, TOKENIZER, tokenize_chinese_chars=False)
    assert ids(load(folder), "밥中밥") == [2, *ids_of("[UNK]"), 3]


@pytest.mark.parametrize("key", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_flags_of_another_type_are_refused(folder, key):
    change(folder, TOKENIZER, **{key: "yes"})
    assert key in refusal(folder)


def test_bert_adds_its_special_tokens_without_a_post_processor(folder):
    edit_json(folder / "tokenizer.json", lambda value: value.update(post_processor=None))
    assert ids(load(folder), "밥") == [2, *ids_of("밥"), 3]


def test_white_space_at_the_end_is_no_token_to_xlm_roberta(tmp_path):
    folder = xlm_roberta_folder(tmp_path / "model")
    expected = ids(load(folder), "밥 먹다")
    edit_json(folder / "tokenizer.json", metaspace_alone)
    assert ids(load(folder), " 밥  먹다 \n") == expected


def metaspace_alone(description: dict) -> None:
    description["pre_tokenizer"] = description["pre_tokenizer"]["pretokenizers"][1]


# What cannot be loaded, and what to do then


@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter_must_be_merged_first(folder, alone):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    if alone:
        for name in ("config.json", "modules.json", "model.safetensors"):
            (folder / name).unlink()
    assert "merge_and_unload" in refusal(folder)


def test_a_state_of_training(folder):
    (folder / "config.json").unlink()
    for name in ("state.json", "sha256.json"):
        (folder / name).write_text("{}")
    assert "--resume" in refusal(folder)


def test_the_cache_of_the_hub(tmp_path):
    snapshot = tmp_path / "hub" / "models--klue--bert-base" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    assert "klue/bert-base" in refusal(tmp_path / "hub")
    assert str(snapshot) in refusal(snapshot.parent)
    assert str(snapshot) in refusal(snapshot.parent.parent)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spm.model", "vocab.json"])
def test_a_tokenizer_in_another_form(folder, name):
    for each in ("tokenizer.json", "vocab.txt"):
        (folder / each).unlink()
    (folder / name).write_bytes(b"")
    message = refusal(folder)
    assert name in message
    assert "save_pretrained" in message


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("https://huggingface.co/klue/bert-base/tree/main", "klue/bert-base"),
        ("ko-sbert-sts", '"owner/name"'),
        ("./no/such/folder", "no such model folder"),
    ],
)
def test_a_name_of_something_else(source, hint):
    assert hint in refusal(Path(source))
    with pytest.raises(ModelError, match=hint):
        SentenceEncoder.from_pretrained(source)


# Weights


@pytest.mark.parametrize("wrapper", ["module.", "0.auto_model.", "module.0.auto_model."])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta-v2"])
def test_wrappers_and_heads_are_left_behind(tmp_path, model_type, wrapper):
    folder = tiny_folder(tmp_path / "model", model_type)
    expected = load(folder).encode(SENTENCES)
    tensors = load_file(folder / "model.safetensors")
    tensors = {wrapper + name: tensor for name, tensor in tensors.items()}
    tensors |= {f"{head}.weight": tensors[next(iter(tensors))].clone() for head in ("classifier", "qa_outputs")}
    save_file(tensors, folder / "model.safetensors")
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), expected)


# Pooling


@pytest.mark.parametrize("modes", [["weightedmean"], ["lasttoken"], ["mean_sqrt_len_tokens"], ["cls", "max"], ["mean", "cls"]])
def test_pooling_modes_also_after_saving(whole, folder, modes, tmp_path):
    tokens = load(whole).encode(SENTENCES, output_value="token_embeddings")
    pooled = {
        "cls": [each[0] for each in tokens],
        "max": [each.amax(0) for each in tokens],
        "mean": [each.mean(0) for each in tokens],
        "mean_sqrt_len_tokens": [each.sum(0) / len(each) ** 0.5 for each in tokens],
        "weightedmean": [np.average(each, axis=0, weights=range(1, len(each) + 1)) for each in tokens],
        "lasttoken": [each[-1] for each in tokens],
    }
    expected = np.concatenate([np.stack(pooled[mode]) for mode in modes], axis=1)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 24, "pooling_mode": modes}))
    model = load(folder)
    model.save_pretrained(tmp_path / "again")
    for each in (model, load(tmp_path / "again")):
        np.testing.assert_allclose(each.encode(SENTENCES), expected, atol=1e-5)
        np.testing.assert_allclose(each.encode(SENTENCES, truncate_dim=20), expected[:, :20], atol=1e-5)
        assert each.embedding_dimension == expected.shape[1]


def test_the_pooling_of_a_folder_without_modules(whole, folder):
    edit_json(folder / "1_Pooling" / "config.json", lambda value: value.update(pooling_mode="cls"))
    expected = load(folder).encode(SENTENCES)
    (folder / "modules.json").unlink()
    with pytest.warns(UserWarning, match=r"no modules\.json; pooled as 1_Pooling/config\.json says"):
        found = load(folder).encode(SENTENCES)
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(found, load(whole).encode(SENTENCES))
