"""Proves what a model loaded as int8 keeps and what it refuses.

Its vectors are near those of float32 and hardly depend on what a text shares a batch with; it never exists as a whole in
float32; what it cannot do (train, save, run elsewhere) is refused by name.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from minisbert import SentenceEncoder, sentence_encoder
from minisbert.errors import InputError
from minisbert.models.int8 import Int8Linear
from minisbert.training import CosineSimilarityLoss, Objective, Plan, fit
from minisbert.training.evaluators import read_evaluator
from tests.tiny import CONFIGS, SENTENCES, tiny_folder, tiny_model

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
KORSTS = SHARED / "data" / "kor-nlu-datasets" / "KorSTS"
TRAINED = sorted(SHARED.glob("models/ko-mini-*"))
TEXTS = [*SENTENCES, "", "한 남자가 밥을 먹고 있다. " * 4, "물", "두 여자가 길에서 물을 마신다, 아이는 달린다?"]

if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
    pytest.skip("this processor has no 8-bit products", allow_module_level=True)


@pytest.fixture(params=CONFIGS, scope="module")
def folder(request, tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("int8") / "m", request.param, seed=3)


@pytest.fixture(scope="module")
def model(folder):
    return SentenceEncoder.from_pretrained(folder, device="cpu", dtype="int8")


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_vectors_are_near_those_of_float32(model, folder):
    exact = SentenceEncoder.from_pretrained(folder, device="cpu").encode(TEXTS)
    found = model.encode(TEXTS)
    assert found.dtype == np.float32
    assert cosines(found, exact).min() > 0.99
    assert not np.allclose(found, exact, atol=1e-4)


def test_every_linear_map_is_8_bit(model):
    kinds = [type(module) for module in model.encoder.modules() if hasattr(module, "bias") and hasattr(module, "weight")]
    assert kinds.count(Int8Linear) == 2 * 6
    assert torch.nn.Linear not in {base for kind in kinds for base in kind.__mro__}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_text_does_not_depend_on_its_batch(model):
    """Alone, among others of its length, and in small batches."""
    alone = np.stack([model.encode(text) for text in TEXTS])
    assert cosines(model.encode(TEXTS * 3), np.concatenate([alone] * 3)).min() >= 0.9999
    assert cosines(model.encode(TEXTS, max_tokens_per_batch=20), alone).min() >= 0.9999


def test_texts_of_different_lengths_share_no_batch(model):
    masks = []
    hook = model.encoder.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[1]))
    model.encode(TEXTS * 3)
    hook.remove()
    assert masks and all(mask is None for mask in masks)


def test_padding_changes_nothing(model):
    ids = torch.tensor([[2, 5, 9, 20, 3]])
    mask = torch.arange(9) < 5
    with torch.inference_mode():
        padded = model(torch.nn.functional.pad(ids, (0, 4), value=model.config.pad_token_id), mask[None])
        torch.testing.assert_close(padded, model(ids), atol=0.02, rtol=0)


def test_texts_of_nothing(model):
    vectors = model.encode(["", "", " "])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    assert model.encode([]).shape == (0, 24)


def test_own_projections_of_positions_are_8_bit_too(tmp_path):
    folder = tiny_folder(tmp_path / "m", "deberta-v2", share_att_key=False)
    exact, found = (SentenceEncoder.from_pretrained(folder, device="cpu", dtype=dtype) for dtype in (None, torch.int8))
    assert cosines(found.encode(TEXTS), exact.encode(TEXTS)).min() > 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_in_two_bytes(tmp_path, dtype):
    model = tiny_model().to(dtype)
    model.save_pretrained(tmp_path / "short")
    model.float().save_pretrained(tmp_path / "long")
    a, b = (SentenceEncoder.from_pretrained(tmp_path / name, device="cpu", dtype="int8") for name in ("short", "long"))
    assert a.fingerprint() == b.fingerprint()
    np.testing.assert_array_equal(a.encode(TEXTS), b.encode(TEXTS))


def test_it_knows_what_it_is(model, folder):
    exact = SentenceEncoder.from_pretrained(folder, device="cpu")
    again = SentenceEncoder.from_pretrained(folder, device="cpu", dtype=torch.int8)
    assert (exact.dtype, model.dtype, again.dtype) == (torch.float32, torch.int8, torch.int8)
    assert model.fingerprint() == again.fingerprint() != exact.fingerprint()
    other = tiny_folder(folder.parent / "other", exact.folder.config["model_type"], seed=4)
    assert SentenceEncoder.from_pretrained(other, device="cpu", dtype="int8").fingerprint() != model.fingerprint()


def test_a_dtype_may_be_named(folder):
    assert SentenceEncoder.from_pretrained(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    for wrong in ("int4", "float", torch.int32):
        with pytest.raises(InputError, match=r"dtype must be one of float64, .*, int8, found .*(int4|float|int32)"):
            SentenceEncoder.from_pretrained(folder, device="cpu", dtype=wrong)


def test_saving_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="int8 model cannot be saved: load it with another dtype"):
        model.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_training_is_refused(model):
    objective = Objective([], CosineSimilarityLoss())
    with pytest.raises(InputError, match="int8 model cannot be trained: load it as float32"):
        fit(model, [objective], Plan(epochs=1))
    assert not model(torch.tensor([[2, 5, 3]])).requires_grad


@pytest.mark.parametrize("move", [lambda model: model.to("meta"), lambda model: model.bfloat16(), lambda model: model.double()])
def test_it_stays_where_and_what_it_is(model, move):
    with pytest.raises(InputError, match="load it again for another device or dtype"):
        move(model.encoder.layers)


def test_what_changes_nothing_is_allowed(model):
    expected = model.encode(SENTENCES)
    np.testing.assert_array_equal(model.to("cpu").float().encode(SENTENCES), expected)


def test_other_devices_are_refused(folder, monkeypatch):
    monkeypatch.setattr(sentence_encoder, "usable_device", torch.device)  # as if there were one
    with pytest.raises(InputError, match="int8 is for the device cpu, not cuda: use bfloat16 or float32"):
        SentenceEncoder.from_pretrained(folder, device="cuda", dtype="int8")


def test_processors_without_the_products_are_refused(folder, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(InputError, match="needs an x86 processor with AVX2: use float32 or bfloat16"):
        SentenceEncoder.from_pretrained(folder, device="cpu", dtype="int8")


def test_versions_of_torch_without_the_products_are_refused(folder, monkeypatch):
    monkeypatch.setattr(torch.ops, "onednn", object())
    with pytest.raises(InputError, match=r"products that torch \S+ does not have: use float32 or bfloat16"):
        SentenceEncoder.from_pretrained(folder, device="cpu", dtype="int8")


GROWTH = """
import sys
from minisbert import SentenceEncoder
from tests.faults.measure_loading import peak
SentenceEncoder.from_pretrained(sys.argv[1], device="cpu")  # a tiny one: libraries are loaded
before = peak()
SentenceEncoder.from_pretrained(sys.argv[2], device="cpu", dtype=sys.argv[3])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_it_never_exists_in_float32_as_a_whole(tmp_path):
    """30 MB of weights in each of six layers, hardly any embeddings: loading takes half the memory of float32."""
    fields = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 6}
    big, small = tiny_folder(tmp_path / "big", "roberta", **fields), tiny_folder(tmp_path / "small", "roberta")
    growth = {}
    for dtype in ("float32", "int8"):
        command = [sys.executable, "-c", GROWTH, str(small), str(big), dtype]
        growth[dtype] = int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    shutil.rmtree(big)
    assert growth["float32"] > 150_000  # kB
    assert growth["int8"] < 0.6 * growth["float32"]


@pytest.mark.skipif(not TRAINED, reason="no folder of trained models beside the checkout")
@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_trained_models(folder):
    """KorSTS test: Spearman x100 falls by at most 0.15; every one of 1,000 sentences keeps its direction."""
    exact, found = (SentenceEncoder.from_pretrained(folder, device="cpu", dtype=dtype) for dtype in ("float32", "int8"))
    evaluate = read_evaluator(KORSTS / "sts-test.tsv")
    texts = evaluate.sentences1[:500] + evaluate.sentences2[:500]
    assert cosines(found.encode(texts), exact.encode(texts)).min() >= 0.995
    before, after = (evaluate(model)["spearman_cosine"] for model in (exact, found))
    assert after >= before - 0.0015
