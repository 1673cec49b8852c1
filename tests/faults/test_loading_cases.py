"""Proves that a model folder either loads or is refused with one line that names what is wrong.

A folder comes from strangers or from a broken download. Whatever is in it, nothing of it runs, no memory is taken and
no time lost for what cannot be a model, and no half-loaded model comes out. The case numbers in the names of the tests
are explained in tests/CASES.md.
"""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from minisbert import SentenceEncoder
from minisbert.cli import encode
from minisbert.errors import InputError
from tests.model_files import edit_header, edit_json, join_safetensors, refusal, split_safetensors
from tests.tiny import SENTENCES, VOCABULARY, tiny_folder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 442515021\n"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder that loads; tests change copies of it."""
    return tiny_folder(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(model, tmp_path):
    return Path(shutil.copytree(model, tmp_path / "model"))


def load(folder: Path) -> SentenceEncoder:
    return SentenceEncoder.from_pretrained(folder, device="cpu")


def exit_code(folder: Path) -> int:
    return encode.main(["밥을 먹는다.", "--model", str(folder), "--device", "cpu", "--output", "-"])


def shard(folder: Path) -> dict[str, str]:
    """Split the weights of a folder into two files with an index; returns tensor -> file."""
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    files = {name: f"model-0000{1 + position % 2}-of-00002.safetensors" for position, name in enumerate(tensors)}
    for file in sorted(set(files.values())):
        safetensors.torch.save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    (folder / WEIGHTS).unlink()
    return files


def change_tensors(folder: Path, change) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS)


# Weights


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"", "0 bytes"),
        (b"\x10\0\0\0\0\0\0", "7 bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not a safetensors file"),
        (POINTER, "run `git lfs pull`"),
    ],
)
def test_L1_a_file_that_is_something_else(folder, capsys, data, hint):
    (folder / WEIGHTS).write_bytes(data)
    assert exit_code(folder) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert WEIGHTS in captured.err
    assert hint in captured.err


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "modules.json", "pytorch_model.bin"])
def test_L1_a_pointer_in_place_of_any_file(folder, name):
    (folder / WEIGHTS).unlink() if name == "pytorch_model.bin" else None
    (folder / name).write_bytes(POINTER)
    assert "run `git lfs pull`" in refusal(folder)


def test_L3_a_file_cut_off_anywhere(folder):
    data = (folder / WEIGHTS).read_bytes()
    for length in sorted(random.Random(0).sample(range(len(data)), 50)):
        (folder / WEIGHTS).write_bytes(data[:length])
        assert WEIGHTS in refusal(folder)


def overlap(header):
    header[QUERY]["data_offsets"] = header["embeddings.LayerNorm.bias"]["data_offsets"]


def hole(header):
    last = max(header, key=lambda name: header[name].get("data_offsets", [0])[0])
    header[last]["data_offsets"] = [offset + 4 for offset in header[last]["data_offsets"]]


def begin_after_end(header):
    header[QUERY]["data_offsets"].reverse()


def shape_overflow(header):
    header[QUERY]["shape"] = [2**63, 2**63]


def negative_shape(header):
    header[QUERY]["shape"] = [-24, -24]


def no_dtype(header):
    del header[QUERY]["dtype"]


def no_object(header):
    header[QUERY] = []


@pytest.mark.parametrize("change", [overlap, hole, begin_after_end, shape_overflow, negative_shape, no_dtype, no_object])
def test_L4_ranges_and_shapes_that_cannot_be(folder, change):
    edit_header(folder, change)
    assert WEIGHTS in refusal(folder)


def test_L4_a_byte_too_many(folder):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")
    assert WEIGHTS in refusal(folder)


def test_L5_the_same_tensor_twice(folder):
    header, body = split_safetensors((folder / WEIGHTS).read_bytes())
    twice = json.dumps({QUERY: header[QUERY]})[:-1] + "," + json.dumps(header)[1:]
    (folder / WEIGHTS).write_bytes(join_safetensors(twice.encode(), body))
    assert f"{QUERY!r} occurs twice" in refusal(folder)


def test_L6_missing_and_unexpected_tensors(folder, capsys):
    def rename(tensors):
        tensors["나머지\n\x1b[31m"] = tensors.pop(QUERY)

    change_tensors(folder, rename)
    message = refusal(folder)
    assert f"1 missing ({QUERY})" in message
    assert r"1 unexpected (나머지\n\x1b[31m)" in message
    assert exit_code(folder) == 3
    assert QUERY in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("bert", "cls.predictions.bias"),
        ("bert", "cls.seq_relationship.weight"),
        ("bert", "embeddings.position_ids"),
        ("roberta", "lm_head.dense.weight"),
        ("roberta", "embeddings.position_ids"),
        ("deberta-v2", "cls.predictions.bias"),
        ("deberta-v2", "lm_predictions.lm_head.bias"),
        ("deberta-v2", "mask_predictions.dense.weight"),
        ("deberta-v2", "pooler.dense.weight"),
        ("deberta-v2", "embeddings.position_ids"),
        ("deberta-v2", "embeddings.position_embeddings.weight"),
    ],
)
def test_L6_tensors_that_are_known_and_not_needed(tmp_path, model_type, name):
    folder = tiny_folder(tmp_path / "model", model_type)
    expected = load(folder).encode(SENTENCES)
    change_tensors(folder, lambda tensors: tensors.update({name: torch.arange(40)}))
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), expected)


def test_L6_a_checkpoint_without_any_tensor(folder):
    safetensors.torch.save_file({}, folder / WEIGHTS)
    assert "missing (embeddings.word_embeddings.weight" in refusal(folder)


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.zeros(24, 23), "F32 [24, 23]"),
        (torch.zeros(24 * 24), "F32 [576]"),
        (torch.zeros(24, 24, dtype=torch.int64), "I64 [24, 24]"),
        (torch.zeros(24, 24, dtype=torch.complex64), "C64 [24, 24]"),
        (torch.zeros(24, 24, dtype=torch.bool), "BOOL [24, 24]"),
    ],
)
@pytest.mark.parametrize("name", [QUERY, "pooler.dense.weight"])
def test_L7_another_shape_or_type(folder, name, tensor, found):
    change_tensors(folder, lambda tensors: tensors.update({name: tensor}))
    assert f"{name} is {found}, expected a floating point [24, 24]" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_L8_weights_that_are_not_finite(folder, value):
    change_tensors(folder, lambda tensors: tensors[QUERY][3, 4].fill_(value))
    assert f"{WEIGHTS}: the tensor {QUERY} holds NaN or infinite values" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "deberta-v2"])
def test_L9_other_precisions_equal_their_float32_values(tmp_path, model_type, dtype):
    stored, upcast = tiny_folder(tmp_path / "stored", model_type), tmp_path / "upcast"
    change_tensors(stored, lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()}))
    shutil.copytree(stored, upcast)
    change_tensors(upcast, lambda tensors: tensors.update({name: t.float() for name, t in tensors.items()}))
    np.testing.assert_array_equal(load(stored).encode(SENTENCES), load(upcast).encode(SENTENCES))


def test_shards_load_as_one_file_does(folder):
    expected = load(folder).encode(SENTENCES)
    shard(folder)
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), expected)


@pytest.mark.parametrize("name", ["../x", "/abs", "C:\\x", "C:x", "sub/../../x", "sub/x", "..", "", "x\0", "x" * 300])
def test_L10_shards_outside_the_folder_are_not_opened(folder, name):
    shard(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder.parent / "x")
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({QUERY: name}))
    assert "which is not in this folder" in refusal(folder)


@pytest.mark.parametrize("sharded", [False, True])
def test_L11_links_into_the_cache_of_the_hub(folder, sharded, tmp_path):
    expected = load(folder).encode(SENTENCES)
    if sharded:
        shard(folder)
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(path for path in sorted(folder.rglob("*")) if path.is_file()):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    np.testing.assert_array_equal(load(snapshot).encode(SENTENCES), expected)


def test_L12_an_index_that_names_a_missing_file(folder):
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "'model-00002-of-00002.safetensors', which is missing" in refusal(folder)


def test_L12_a_tensor_that_is_not_in_its_file(folder):
    files = shard(folder)
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({"absent": files[QUERY]}))
    assert "disagree about absent" in refusal(folder)


def test_L12_a_tensor_in_two_files(folder):
    files = shard(folder)
    other = next(file for file in files.values() if file != files[QUERY])
    tensors = safetensors.torch.load_file(folder / other) | {QUERY: torch.zeros(24, 24)}
    safetensors.torch.save_file(tensors, folder / other)
    assert f"the tensor {QUERY} is in two files" in refusal(folder)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {}}])
def test_L12_an_index_that_is_none(folder, index):
    shard(folder)
    (folder / INDEX).write_text(json.dumps(index))
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_L13_a_pickle_of_tensors_loads(folder, zipped):
    expected = load(folder).encode(SENTENCES)
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), expected)


class RunsCode:
    """Makes a file when it is unpickled, as any pickle can."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_L13_a_pickle_that_would_run_code(folder, tmp_path, form):
    path, marker = folder / "pytorch_model.bin", tmp_path / "the code ran"
    content = {**safetensors.torch.load_file(folder / WEIGHTS), "attack": RunsCode(marker)}
    (folder / WEIGHTS).unlink()
    if form == "bare":
        path.write_bytes(pickle.dumps(content["attack"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    assert "pytorch_model.bin: not a file of tensors that can be read safely" in refusal(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(content["attack"]))
    assert marker.exists()  # it was a loaded gun


# Small files


def test_L14_nothing_of_the_folder_is_imported(folder):
    expected = load(folder).encode(SENTENCES)
    attack = f"open({str(folder / 'imported')!r}, 'w')"
    for name in ("modeling_evil", "torch", "sitecustomize"):
        (folder / f"{name}.py").write_text(attack)
    edit_json(
        folder / "config.json",
        lambda config: config.update(
            auto_map={"AutoModel": "modeling_evil.Model", "AutoConfig": "modeling_evil.Config"},
            trust_remote_code=True,
            _attn_implementation_internal="modeling_evil/kernel",
        ),
    )
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), expected)
    assert not (folder / "imported").exists()


@pytest.mark.parametrize(
    "kind",
    [
        "os.system",
        "modeling_evil.Transformer",
        "sentence_transformers.models.Dense",
        "sentence_transformers_evil.Transformer",
        None,
        ["sentence_transformers.models.Transformer"],
    ],
)
def test_L14_modules_that_are_not_known(folder, kind):
    edit_json(folder / "modules.json", lambda modules: modules[0].update(type=kind))
    assert "modules.json" in refusal(folder)
    assert "modeling_evil" not in sys.modules


def nested(depth):
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


MANY_NAMES = ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(200_000))
HEADER_LENGTHS = {
    "2^64 - 1": (2**64 - 1, b"{}" * 50),
    "10^8 + 1": (10**8 + 1, b"{}" * 50),
    "99,999,999": (99_999_999, b"{}"),
    "9,000,000": (9_000_000, b" " * 9_000_000),
    "many names": (len(MANY_NAMES) + 2, b"{" + MANY_NAMES.encode() + b"}"),
}
CONFIG_FIELDS = {
    "layers 10^6": {"num_hidden_layers": 10**6},
    "layers -1": {"num_hidden_layers": -1},
    "layers as text": {"num_hidden_layers": "12"},
    "layers true": {"num_hidden_layers": True},
    "layers 1e9": {"num_hidden_layers": 1e9},
    "layers missing": {"num_hidden_layers": None},
    "as large as is allowed": {
        "num_hidden_layers": 256,
        "hidden_size": 65536,
        "intermediate_size": 65536,
        "vocab_size": 1 << 22,
    },
    "vocabulary 10^12": {"vocab_size": 10**12},
    "width 10^9": {"hidden_size": 10**9},
    "positions 10^9": {"max_position_embeddings": 10**9},
    "heads 0": {"num_attention_heads": 0},
    "heads 5": {"num_attention_heads": 5},
    "epsilon a list": {"layer_norm_eps": [1e-12]},
    "epsilon 1e999": {"layer_norm_eps": 10**400},
    "activation": {"hidden_act": "os.system"},
    "activation a list": {"hidden_act": ["gelu"]},
    "family": {"model_type": "gpt2"},
    "family a list": {"model_type": ["bert"]},
    "padding beyond": {"pad_token_id": 10**6},
    "decoder": {"is_decoder": True},
    "positions relative": {"position_embedding_type": "relative_key"},
    "4000 digits": {"hidden_size": 10**4000},
}
CONFIG_TEXTS = {
    "epsilon NaN": b'{"model_type": "bert", "layer_norm_eps": NaN}',
    "twice": b'{"model_type": "bert", "model_type": "roberta"}',
    "10^5 deep": nested(10**5),
    "5000 digits": b'{"hidden_size": ' + b"9" * 5000 + b"}",
    "not UTF-8": '{"model_type": "버트"}'.encode("cp949"),
    "UTF-16": '{"model_type": "bert"}'.encode("utf-16"),
    "half a character": rb'{"model_type": "\ud800"}',
    "list": b"[]",
    "empty": b"",
    "20 MB": b'{"a": "' + b"a" * 20_000_000 + b'"}',
}


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    """What comes of every folder in the tables above, measured in one process of its own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    root = tmp_path_factory.mktemp("measured")
    cases = [*HEADER_LENGTHS, *CONFIG_FIELDS, *CONFIG_TEXTS, "padding and truncation"]
    for number, case in enumerate(cases):
        folder = Path(shutil.copytree(model, root / str(number)))
        if case in HEADER_LENGTHS:
            length, rest = HEADER_LENGTHS[case]
            (folder / WEIGHTS).write_bytes(length.to_bytes(8, "little") + rest)
        elif case in CONFIG_FIELDS:
            edit_json(folder / "config.json", lambda config, case=case: config.update(CONFIG_FIELDS[case]))
        elif case in CONFIG_TEXTS:
            (folder / "config.json").write_bytes(CONFIG_TEXTS[case])
        else:
            edit_json(folder / "tokenizer.json", bake_in)
    folders = [str(model), *(str(root / str(number)) for number in range(len(cases)))]
    command = [sys.executable, "-m", "tests.faults.measure_loading", *folders]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0][0] is None  # the whole model loads
    return dict(zip(cases, lines[1:], strict=True))


@pytest.mark.parametrize("case", HEADER_LENGTHS)
def test_L2_header_lengths_that_cannot_be(measured, case):
    (error, message), seconds, kilobytes = measured[case]
    assert error == "ModelError"
    assert WEIGHTS in message
    assert seconds < 1
    assert kilobytes < 50_000


@pytest.mark.parametrize("case", [*CONFIG_FIELDS, *CONFIG_TEXTS])
def test_L15_configurations_that_cannot_be(measured, case):
    (error, message), seconds, kilobytes = measured[case]
    assert error == "ModelError"
    assert "config.json" in message
    assert message.isprintable()
    assert len(message) < 1000
    assert seconds < 2
    assert kilobytes < 300_000


def test_L15_exit_code_and_message(folder, capsys):
    edit_json(folder / "config.json", lambda config: config.update(num_hidden_layers="12"))
    assert exit_code(folder) == 3
    error = capsys.readouterr().err
    assert error == "encode.py: config.json: num_hidden_layers must be a whole number, found '12'\n"


# Tokenizers


def bake_in(tokenizer):
    """Truncation and padding that were on when the tokenizer was saved."""
    tokenizer["truncation"] = {"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 2}
    tokenizer["padding"] = {
        "strategy": {"Fixed": 10**7},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }


def test_L16_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()
    assert "neither tokenizer.json nor vocab.txt" in refusal(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version": "1.0", "model": {"type": "WordPiece"}}',
        b'{"version": "1.0", "added_tokens": [], "model": {"type": "Telepathy", "vocab": {}}}',
        b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}}',
    ],
)
def test_L16_tokenizers_that_are_none(folder, data):
    (folder / "tokenizer.json").write_bytes(data)
    assert "tokenizer.json" in refusal(folder)


def test_L16_a_tokenizer_cut_off(folder):
    data = (folder / "tokenizer.json").read_bytes()
    for length in random.Random(0).sample(range(len(data)), 20):
        (folder / "tokenizer.json").write_bytes(data[:length])
        assert "tokenizer.json" in refusal(folder)


@pytest.mark.parametrize("number", [len(VOCABULARY), 4_000_000_000])
def test_L16_tokens_that_have_no_embedding(folder, number):
    expected = load(folder).encode(SENTENCES)
    edit_json(folder / "tokenizer.json", lambda tokenizer: tokenizer["model"]["vocab"].update({"밖": number}))
    model = load(folder)
    np.testing.assert_array_equal(model.encode(SENTENCES), expected)
    with pytest.raises(InputError, match=f"row 1: the token '밖' has the id {number}, but the model has {len(VOCABULARY)}"):
        model.encode(["밥", "밥 밖", "밖"])


def test_L16_a_token_without_embedding_in_every_text(folder):
    # Else the special tokens come from the class, not from tokenizer.json.
    edit_json(folder / "tokenizer_config.json", lambda settings: settings.update(tokenizer_class="PreTrainedTokenizerFast"))
    ids = [4_000_000_000]
    edit_json(folder / "tokenizer.json", lambda each: each["post_processor"]["special_tokens"]["[CLS]"].update(ids=ids))
    assert f"but the model has {len(VOCABULARY)} embeddings" in refusal(folder)


def test_L16_padding_and_truncation_are_overridden(folder, measured):
    error, seconds, kilobytes = measured["padding and truncation"]
    assert error is None
    assert seconds < 2
    assert kilobytes < 50_000
    expected = load(folder).encode(SENTENCES)
    edit_json(folder / "tokenizer.json", bake_in)
    np.testing.assert_array_equal(load(folder).encode(SENTENCES), expected)


def test_L16_special_tokens_leave_room_for_text(folder):
    edit_json(folder / "sentence_bert_config.json", lambda config: config.update(max_seq_length=2))
    assert "cuts texts to 2 tokens, but tokenizer.json adds 2 to each" in refusal(folder)


def split_by(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a)*$", r"a*a*a*a*b", r"(", r"((a{1000}){1000}){1000}", r"\p{Hangul}"])
def test_L17_patterns_that_could_run_forever(folder, capfd, pattern):
    edit_json(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(pre_tokenizer=split_by(pattern)))
    assert exit_code(folder) == 3
    error = capfd.readouterr().err  # what is written natively, such as the backtrace of a panic, is in it too
    assert error.count("\n") == 1
    assert "tokenizer.json: the pattern" in error
    edit_json(
        folder / "tokenizer.json",
        lambda tokenizer: tokenizer.update(
            pre_tokenizer=None,
            normalizer={
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}],
            },
        ),
    )
    assert "tokenizer.json: the pattern" in refusal(folder)


# Paths


def test_L18_hangul_and_spaces(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "내 모델 (최종) ①")
    assert exit_code(folder) == 0


def test_L18_no_folder(folder, tmp_path):
    assert "no such model folder" in refusal(tmp_path / "없음")
    assert "a file, not a model folder" in refusal(folder / "config.json")
    (tmp_path / "빈 폴더").mkdir()
    assert "no config.json there" in refusal(tmp_path / "빈 폴더")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", WEIGHTS])
def test_L18_a_file_that_cannot_be_read(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{folder / name}: cannot be read" in refusal(folder)
