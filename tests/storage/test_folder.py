"""Proves that the folders of all versions of sentence-transformers are read, and that saving never harms one."""

import dataclasses
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from minisbert import SentenceEncoder
from minisbert.storage.folder import read_folder
from tests.model_files import edit_json, refusal
from tests.tiny import CONFIGS, SENTENCES, tiny_folder, tiny_model


@pytest.fixture
def folder(tmp_path):
    return tiny_folder(tmp_path / "model")


def load(folder):
    return SentenceEncoder.from_pretrained(folder, device="cpu")


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def files_of(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


MASK = {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}

# Reading


def test_what_is_written_is_read_again(tmp_path):
    model = tiny_model(pooling="max", normalize=True)
    settings = {
        "prompts": {"query": "질문: ", "document": ""},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        "lowercase": True,
        "max_seq_length": 17,
    }
    model.folder = dataclasses.replace(model.folder, **settings)
    model.max_seq_length = 17
    model.save_pretrained(tmp_path / "model")
    found = read_folder(tmp_path / "model")
    assert {name: getattr(found, name) for name in settings} == settings
    assert (found.pooling_mode, found.normalize, found.encoder_path) == ("max", True, "")
    names = ("tokenizer.json", "vocab.txt")
    assert [found.tokenizer_files[name] for name in names] == [model.folder.tokenizer_files[name] for name in names]
    assert found.config.items() >= CONFIGS["bert"].items()


def test_the_legacy_layout_is_written(folder):
    assert [path for path, data in files_of(folder).items() if data] == [
        "1_Pooling/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    prefix = "sentence_transformers.models."
    assert json.loads((folder / "modules.json").read_bytes()) == [
        {"idx": 0, "name": "0", "path": "", "type": prefix + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": prefix + "Pooling"},
    ]
    assert json.loads((folder / "1_Pooling" / "config.json").read_bytes()) == {
        "word_embedding_dimension": 24,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    expected = {"max_seq_length": 40, "do_lower_case": False}
    assert json.loads((folder / "sentence_bert_config.json").read_bytes()) == expected
    config = json.loads((folder / "config.json").read_bytes())
    assert (config["architectures"], config["torch_dtype"]) == (["BertModel"], "float32")
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    assert json.loads((folder / "special_tokens_map.json").read_bytes()) == special
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    assert settings == {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 40, **special}


def test_others_are_told_where_texts_are_cut(folder, tmp_path):
    """Some readers know no sentence_bert_config.json; a tokenizer without a limit says 10^30."""
    edit_json(folder / "tokenizer_config.json", lambda settings: settings.update(model_max_length=10**30, mask_token=MASK))
    (folder / "special_tokens_map.json").unlink()
    model = load(folder)
    model.max_seq_length = 17
    model.save_pretrained(tmp_path / "again")
    settings, special = (
        json.loads((tmp_path / "again" / f"{name}.json").read_bytes()) for name in ("tokenizer_config", "special_tokens_map")
    )
    assert (settings["model_max_length"], settings["mask_token"]) == (17, MASK)
    assert special["mask_token"] == {"content": "[MASK]", "lstrip": True}
    again = load(tmp_path / "again")
    np.testing.assert_array_equal(again.encode(SENTENCES), model.encode(SENTENCES))
    again.save_pretrained(tmp_path / "third")
    assert files_of(tmp_path / "third") == files_of(tmp_path / "again")


def test_the_layout_of_version_6(folder):
    expected = load(folder).encode(SENTENCES)
    base = "sentence_transformers.base.modules.transformer.Transformer"
    modules = "sentence_transformers.sentence_transformer.modules."
    write(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": base},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": modules + "pooling.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": modules + "normalize.Normalize"},
        ],
    )
    settings = {"embedding_dimension": 24, "pooling_mode": "mean", "include_prompt": True}
    write(folder / "1_Pooling" / "config.json", settings)
    write(folder / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    write(
        folder / "tokenizer_config.json", {"model_max_length": 20, "tokenizer_class": "BertTokenizer", "do_lower_case": False}
    )
    model = load(folder)
    assert model.max_seq_length == 20
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(SENTENCES), expected / lengths, atol=1e-6)


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_roberta_config.json"])
def test_the_encoder_in_a_folder_of_its_own(folder, name):
    expected = load(folder).encode(SENTENCES)
    (folder / "0_Transformer").mkdir()
    for path in list(folder.iterdir()):
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(folder / "0_Transformer" / path.name)
    write(folder / "0_Transformer" / name, {"max_seq_length": 30})
    edit_json(folder / "modules.json", lambda modules: modules[0].update(path="0_Transformer"))
    model = load(folder)
    np.testing.assert_array_equal(model.encode(SENTENCES), expected)
    assert model.max_seq_length == (30 if name == "sentence_bert_config.json" else 40)
    model.save_pretrained(folder)  # from now on in the folder itself
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), expected)


def test_a_plain_model_is_pooled_by_its_mean_and_says_so(folder):
    expected = load(folder).encode(SENTENCES)
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    with pytest.warns(UserWarning, match=r"nothing says how to pool \(modules\.json\); mean pooling is used") as caught:
        model = load(folder)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(model.encode(SENTENCES), expected)


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False, "include_prompt": True}, "mean"),
        ({"word_embedding_dimension": 24}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "max", "pooling_mode_mean_tokens": True}, "max"),
        ({"pooling_mode_cls_token": True}, "cls"),  # version 6; earlier ones put the mean beside it
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls+mean"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "lasttoken"),
        ({"pooling_mode": ["mean", "cls"]}, "mean+cls"),
    ],
)
def test_pooling_modes(folder, settings, mode):
    write(folder / "1_Pooling" / "config.json", settings)
    assert read_folder(folder).pooling_mode == mode


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling_mode_cls_token": "true"},
        {"pooling_mode_mean_tokens": False},
        {"pooling_mode": "median"},
        {"pooling_mode": ["mean", "+"]},
        {"pooling_mode": "mean+cls"},
        {"pooling_mode": {}},
        {"pooling_mode": "mean", "include_prompt": False},
        [],
    ],
)
def test_pooling_that_is_not_supported(folder, settings):
    write(folder / "1_Pooling" / "config.json", settings)
    assert f"{folder / '1_Pooling' / 'config.json'}: " in refusal(folder)


@pytest.mark.parametrize("kinds", ["", "P", "PT", "TN", "TPP", "TTP", "TPNN", "TNP", "TPD"])
def test_chains_that_are_not_supported(folder, kinds):
    names = {"T": "Transformer", "P": "Pooling", "N": "Normalize", "D": "Dense"}
    paths = {"T": "", "P": "1_Pooling", "N": "2_Normalize", "D": "3_Dense"}
    modules = [{"path": paths[kind], "type": f"sentence_transformers.models.{names[kind]}"} for kind in kinds]
    write(folder / "modules.json", modules)
    assert f"{folder / 'modules.json'}: " in refusal(folder)


@pytest.mark.parametrize("path", ["..", "../model", "/etc", "1_Pooling/..", "C:x", "a\\b", "a\0b", "\n", None, 1, []])
def test_modules_outside_the_folder(folder, path):
    edit_json(folder / "modules.json", lambda modules: modules[1].update(path=path))
    assert "is not that of a folder in this one" in refusal(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": ["query"]},
        {"prompts": {"query": 1}},
        {"default_prompt_name": "query"},
        {"default_prompt_name": []},
        {"similarity_fn_name": "hamming"},
        {"similarity_fn_name": ["cosine"]},
    ],
)
def test_settings_that_are_not_supported(folder, settings):
    write(folder / "config_sentence_transformers.json", settings)
    assert f"{folder / 'config_sentence_transformers.json'}: " in refusal(folder)


@pytest.mark.parametrize(
    ("length", "model_max_length", "expected"),
    [(20, 30, 20), (None, 30, 30), (None, None, 40), (None, 10**30, 40), (None, 1e30, 40), (0, 30, 30)],
)
def test_the_longest_text(folder, length, model_max_length, expected):
    write(folder / "sentence_bert_config.json", {"max_seq_length": length})
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=model_max_length))
    assert load(folder).max_seq_length == expected


def test_more_tokens_than_the_model_was_made_for(folder):
    edit_json(folder / "sentence_bert_config.json", lambda config: config.update(max_seq_length=999))
    with pytest.warns(UserWarning, match="up to 999 tokens; this model was made for 40, and texts are cut to that"):
        assert load(folder).max_seq_length == 40


@pytest.mark.parametrize("length", [-1, 20.5, "20", True, [20]])
def test_longest_texts_that_cannot_be(folder, length):
    write(folder / "sentence_bert_config.json", {"max_seq_length": length})
    assert "max_seq_length" in refusal(folder)


# Writing


def interrupt_at(monkeypatch, owner, name, call):
    """Let the `call`-th call of a function raise KeyboardInterrupt; returns the list of calls so far."""
    original, calls = getattr(owner, name), []

    def function(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, function)
    return calls


STEPS = [(os, "fsync"), (Path, "replace"), (Path, "mkdir"), (Path, "hardlink_to")]


@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_saving_interrupted_at_any_file_leaves_the_old_folder(tmp_path, monkeypatch, owner, name):
    old = tiny_folder(tmp_path / "model", pooling="cls")
    (old / "README.md").write_text("내 모델")
    (old / "1_Pooling" / "config.json").rename(old / "1_Pooling" / "old.json")  # so that something is new
    before = files_of(old)
    model = tiny_model(seed=1, normalize=True)
    for call in range(1, 100):
        with monkeypatch.context() as patch:
            calls = interrupt_at(patch, owner, name, call)
            try:
                model.save_pretrained(old)
            except KeyboardInterrupt:
                pass
            else:
                break
        assert files_of(old) == before
        assert os.listdir(tmp_path) == ["model"]
    assert len(calls) >= 2
    assert os.listdir(tmp_path) == ["model"]
    assert (old / "README.md").read_text() == "내 모델"
    np.testing.assert_array_equal(load(old).encode(SENTENCES), model.encode(SENTENCES))


@pytest.mark.parametrize("call", range(1, 10))
def test_saving_interrupted_leaves_no_new_folder(tmp_path, monkeypatch, call):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, os, "fsync", call)
        tiny_model().save_pretrained(tmp_path / "models" / "mine")
    assert os.listdir(tmp_path / "models") == []


def test_a_file_system_without_links(tmp_path, monkeypatch):
    old = tiny_folder(tmp_path / "model")

    def unsupported(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", unsupported)
    before = files_of(old)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, Path, "replace", 14)
        tiny_model(seed=1).save_pretrained(old)
    assert files_of(old) == before
    tiny_model(seed=1).save_pretrained(old)
    np.testing.assert_array_equal(load(old).encode(SENTENCES), tiny_model(seed=1).encode(SENTENCES))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_followed(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = tiny_folder(tmp_path / "model")
    finally:
        os.umask(before)
    for path in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask


def test_what_only_concerned_the_source_is_not_saved(folder, tmp_path):
    edit_json(folder / "config.json", lambda config: config.update(auto_map={"a": "b"}, dtype="float16", note="밥"))
    with pytest.warns(UserWarning, match="config.json: not used, because nothing is known of it: note$"):
        model = load(folder)
    model.save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_bytes())
    assert "auto_map" not in config
    assert "dtype" not in config
    assert (config["note"], config["torch_dtype"]) == ("밥", "float32")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        tiny_model().save_pretrained(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        tiny_model().save_pretrained(tmp_path / "file" / "model")
    assert os.listdir(tmp_path) == ["file"]


def test_shards_and_pickles_left_behind_do_not_count(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")
    model = tiny_model(seed=1)
    model.save_pretrained(folder)
    assert tensors.keys() == load_file(folder / "model.safetensors").keys()
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), model.encode(SENTENCES))
