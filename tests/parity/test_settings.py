"""Proves that sentence-transformers and we make the same vectors of folders whose settings say something unusual."""

import numpy as np
import pytest

sentence_transformers = pytest.importorskip("sentence_transformers")

from minisbert import SentenceEncoder
from tests.model_files import edit_json, xlm_roberta_folder
from tests.tiny import SENTENCES, tiny_folder

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
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    edit_json(folder / file, lambda settings: settings.update(values))
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
