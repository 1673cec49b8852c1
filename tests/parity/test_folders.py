"""Proves that sentence-transformers and we open each other's folders and compute the same vectors from them.

The full-size models have the published configurations (klue/roberta-base, klue/bert-base, kakaobank/kf-deberta-base) and
random weights.
"""

import os
import warnings

import numpy as np
import pytest
import torch

sentence_transformers = pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers")

from minisbert import SentenceEncoder
from minisbert.models.pooling import POOLING_MODES
from minisbert.training import ko_mini
from tests.tiny import CONFIGS, SENTENCES, STANDARD_DEVIATION, tiny_model, tokenizer_files

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
FULL_SIZE = {
    "klue/roberta-base": ("roberta", {"vocab_size": 32000, "max_position_embeddings": 514}),
    "klue/bert-base": ("bert", {"vocab_size": 32000, "max_position_embeddings": 512}),
    "kakaobank/kf-deberta-base": (
        "deberta-v2",
        {"vocab_size": 130000, "max_position_embeddings": 512, "position_buckets": 256},
    ),
}
LONG_SENTENCES = [*SENTENCES, " ".join(SENTENCES * 6)]


def open_with_reference(folder, **options):
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)


@pytest.mark.parametrize("pooling", [*POOLING_MODES, "cls+mean", "lasttoken+max"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_folder_saved_by_us_opens_there(model_type, pooling, normalize, tmp_path, caplog, capfd):
    model = tiny_model(model_type, pooling=pooling, normalize=normalize)
    model.folder.prompts["query"] = "한 "
    model.save_pretrained(tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        reference = open_with_reference(tmp_path / "ours")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert not [word for word in ("MISSING", "UNEXPECTED", "MISMATCH", "newly") if word in "".join(capfd.readouterr())]
    np.testing.assert_allclose(reference.encode(LONG_SENTENCES), model.encode(LONG_SENTENCES), atol=1e-6)
    np.testing.assert_allclose(
        reference.encode(SENTENCES, prompt_name="query"), model.encode(SENTENCES, prompt_name="query"), atol=1e-6
    )
    assert reference.max_seq_length == model.max_seq_length


@pytest.mark.parametrize("pooling", ["mean", "cls", "weightedmean", "lasttoken+max"])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_folder_saved_there_opens_here(model_type, pooling, tmp_path):
    tiny_model(model_type, pooling=pooling, normalize=pooling == "cls").save_pretrained(tmp_path / "ours")
    reference = open_with_reference(tmp_path / "ours")
    reference.save_pretrained(str(tmp_path / "theirs"))
    model = SentenceEncoder.from_pretrained(tmp_path / "theirs", device="cpu")
    np.testing.assert_allclose(model.encode(LONG_SENTENCES), reference.encode(LONG_SENTENCES), atol=1e-6)
    assert model.max_seq_length == reference.max_seq_length
    assert model.pooling.mode == pooling


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_plain_transformers_folder_opens_here(model_type, tmp_path):
    """A masked-language model as it is published: prefixed names, a head, no modules.json."""
    tiny_model(model_type).save_pretrained(tmp_path / "ours")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    for parameter in model.parameters():
        parameter.data.normal_(std=STANDARD_DEVIATION)
    model.save_pretrained(tmp_path / "theirs")
    for name, data in tokenizer_files(model_type).items():
        (tmp_path / "theirs" / name).write_bytes(data)
    with pytest.warns(UserWarning, match="mean pooling"):
        ours = SentenceEncoder.from_pretrained(tmp_path / "theirs", device="cpu")
    modules = sentence_transformers.sentence_transformer.modules
    transformer = modules.Transformer(str(tmp_path / "theirs"))
    reference = sentence_transformers.SentenceTransformer(
        modules=[transformer, modules.Pooling(transformer.get_embedding_dimension(), "mean")], device="cpu"
    )
    np.testing.assert_allclose(ours.encode(LONG_SENTENCES), reference.encode(LONG_SENTENCES), atol=1e-5)
    ours.save_pretrained(tmp_path / "again")
    np.testing.assert_allclose(open_with_reference(tmp_path / "again").encode(SENTENCES), ours.encode(SENTENCES), atol=1e-6)


@pytest.mark.parametrize("model_type", ko_mini.MODEL_TYPES)
def test_a_new_mini_cuts_long_texts_there_too(model_type, tmp_path):
    """As many words as no model has positions for; what is cut must be cut to the same tokens as here."""
    model = ko_mini.new_model(model_type, SENTENCES, seed=1).eval()
    model.save_pretrained(tmp_path / "mini")
    long_text = " ".join(SENTENCES * 1000)
    assert len(long_text.split()) > 5000
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "mini")
    batch = tokenizer([long_text, SENTENCES[0]], truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = transformers.AutoModel.from_pretrained(tmp_path / "mini").eval()(**batch).last_hidden_state
    expected = model.encode([long_text, SENTENCES[0]], output_value="token_embeddings")
    assert len(expected[0]) == model.config.longest_text
    for found, ours in zip(tokens, expected, strict=True):
        np.testing.assert_allclose(found[: len(ours)], ours, atol=1e-5)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(name, tmp_path):
    model_type, fields = FULL_SIZE[name]
    # The usual initialisation, of standard deviation 0.02: at this size that of the tiny models would saturate attention.
    model = tiny_model(model_type, **BASE, **fields)
    for parameter in model.encoder.parameters():
        parameter.data.mul_(0.02 / STANDARD_DEVIATION)
    model.save_pretrained(tmp_path / "full")
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        reference = open_with_reference(tmp_path / "full", model_kwargs={"dtype": dtype})
        expected = reference.encode(SENTENCES, convert_to_tensor=True).float().numpy()
        ours = SentenceEncoder.from_pretrained(tmp_path / "full", device="cpu", dtype=dtype)
        scale = np.abs(expected).max()  # the tolerances are for vectors of scale 1
        np.testing.assert_allclose(ours.encode(SENTENCES) / scale, expected / scale, atol=tolerance)


@pytest.fixture(autouse=True, scope="module")
def offline():
    os.environ["HF_HUB_OFFLINE"] = "1"
