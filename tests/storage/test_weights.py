"""Proves that weights are loaded under every name they go by, all or nothing, and saved so that others can read them."""

import os
import stat

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from minisbert import SentenceEncoder
from minisbert.errors import ModelError
from minisbert.models.registry import ARCHITECTURES
from minisbert.storage.weights import load_checkpoint, save_checkpoint
from tests.model_files import refusal
from tests.tiny import CONFIGS, SENTENCES, tiny_folder, tiny_model

WEIGHTS = "model.safetensors"
QUERY = "encoder.layer.0.attention.self.query.weight"


def saved(path, model_type="bert"):
    """A tiny folder and its tensors."""
    folder = tiny_folder(path / "model", model_type)
    return folder, load_file(folder / WEIGHTS)


def encode(folder):
    return SentenceEncoder.from_pretrained(folder, device="cpu").encode(SENTENCES)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_names_of_masked_language_models(tmp_path, model_type):
    folder, tensors = saved(tmp_path, model_type)
    expected, names = encode(folder), ARCHITECTURES[model_type].tensor_names
    heads = {name.replace("*", "dense.weight"): torch.zeros(3) for name in names.unused if not name.startswith("emb")}
    save_file({names.prefix + name: tensor for name, tensor in tensors.items()} | heads, folder / WEIGHTS)
    np.testing.assert_array_equal(encode(folder), expected)


def test_the_old_names_of_layer_norm(tmp_path):
    folder, tensors = saved(tmp_path)
    expected = encode(folder)
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert sum(name.endswith((".gamma", ".beta")) for name in renamed) == 10
    save_file(renamed, folder / WEIGHTS)
    np.testing.assert_array_equal(encode(folder), expected)


@pytest.mark.parametrize("twin", [f"bert.{QUERY}", "embeddings.LayerNorm.gamma"])
def test_two_tensors_that_mean_the_same(tmp_path, twin):
    folder, tensors = saved(tmp_path)
    save_file(tensors | {twin: torch.zeros(24)}, folder / WEIGHTS)
    assert "two tensors mean" in refusal(folder)


def test_nothing_is_loaded_from_a_file_that_does_not_fit(tmp_path):
    folder, tensors = saved(tmp_path)
    tensors["encoder.layer.1.output.dense.weight"] = torch.zeros(1)
    save_file(tensors, folder / WEIGHTS)
    encoder = tiny_model(seed=1).encoder
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    with pytest.raises(ModelError, match="does not fit"):
        load_checkpoint(folder, encoder, ARCHITECTURES["bert"].tensor_names)
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, before[name])


def test_every_difference_is_told_at_once(tmp_path):
    folder, tensors = saved(tmp_path)
    del tensors["embeddings.LayerNorm.bias"]
    tensors |= {"strange": torch.zeros(1), QUERY: torch.zeros(2, 3, dtype=torch.int64)}
    save_file(tensors, folder / WEIGHTS)
    message = refusal(folder)
    assert "1 missing (embeddings.LayerNorm.bias)" in message
    assert "1 unexpected (strange)" in message
    assert f"{QUERY} is I64 [2, 3], expected a floating point [24, 24]" in message


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_the_pooler_weights_are_kept(tmp_path, model_type):
    folder, tensors = saved(tmp_path, model_type)
    assert not tensors["pooler.dense.weight"].any()  # of a model that never had one
    pooler = {"pooler.dense.weight": torch.randn(24, 24), "pooler.dense.bias": torch.randn(24)}
    save_file(tensors | pooler, folder / WEIGHTS)
    SentenceEncoder.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / WEIGHTS)
    assert again.keys() == tensors.keys()
    for name, tensor in (tensors | pooler).items():
        assert torch.equal(again[name], tensor)


def test_what_is_saved_is_marked_for_pytorch_and_follows_the_umask(tmp_path):
    model = tiny_model()
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        try:
            save_checkpoint(tmp_path, model.encoder, ARCHITECTURES["bert"].tensor_names, {})
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / WEIGHTS).stat().st_mode) == 0o666 & ~umask
    with safetensors.safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_loaded_model_does_not_need_its_file(tmp_path):
    for name in (WEIGHTS, "pytorch_model.bin"):
        folder, tensors = saved(tmp_path)
        if name == "pytorch_model.bin":
            (folder / WEIGHTS).unlink()
            torch.save(tensors, folder / name)
        model = SentenceEncoder.from_pretrained(folder, device="cpu")
        expected = model.encode(SENTENCES)
        os.truncate(folder / name, 0)  # would kill a process that still had it mapped into memory
        np.testing.assert_array_equal(model.encode(SENTENCES), expected)
        assert not model.pooler_weights["pooler.dense.weight"].any()


def test_safetensors_are_preferred_and_something_must_be_there(tmp_path):
    folder, _ = saved(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"never looked at")
    encode(folder)
    (folder / WEIGHTS).unlink()
    assert "pytorch_model.bin: not a file of tensors" in refusal(folder)
    (folder / "pytorch_model.bin").unlink()
    assert "no weights" in refusal(folder)


def stored_as(tensors, query):
    return tensors | {QUERY: query}


@pytest.mark.parametrize("form", ["parameter", "transposed", "slice of a larger one"])
def test_tensors_as_pickles_hold_them(tmp_path, form):
    folder, tensors = saved(tmp_path)
    expected, query = encode(folder), tensors[QUERY]
    if form == "parameter":
        query = torch.nn.Parameter(query)
    elif form == "transposed":
        query = query.T.contiguous().T
    else:
        query = torch.cat([torch.randn(5, 24), query])[5:]
    (folder / WEIGHTS).unlink()
    torch.save(stored_as(tensors, query), folder / "pytorch_model.bin")
    np.testing.assert_array_equal(encode(folder), expected)


@pytest.mark.parametrize(
    "query",
    [
        torch.zeros(24, 24).to_sparse(),
        torch.zeros(24, 24, device="meta"),
        torch.zeros(24, 24, dtype=torch.complex64),
        torch.full((24, 24), float("nan")),
        [0.0],
        {"weight": torch.zeros(24, 24)},
        None,
    ],
    ids=["sparse", "meta", "complex", "NaN", "list", "nested", "None"],
)
def test_what_a_pickle_may_hold_and_a_model_may_not(tmp_path, query):
    folder, tensors = saved(tmp_path)
    (folder / WEIGHTS).unlink()
    torch.save(stored_as(tensors, query), folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refusal(folder)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), {1: torch.zeros(1)}, {"model": {}}, "밥"])
def test_a_pickle_of_something_else(tmp_path, content):
    folder, _ = saved(tmp_path)
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert "pytorch_model.bin: expected a dictionary of plain tensors" in refusal(folder)
