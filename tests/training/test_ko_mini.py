"""Proves what the recipe of the default model makes of its data: the pairs, the vocabulary, the first weights, the result.

The five folders of data are here in small, in the form of the real ones, with sentences of their own.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from minisbert import SentenceEncoder
from minisbert.cli import train
from minisbert.errors import InputError
from minisbert.training import ko_mini
from minisbert.training.recipes import RECIPES, Task

NLI_HEADER = "sentence1\tsentence2\tgold_label"
STS_HEADER = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2"
# Two questions, each asked in ten ways.
WAYS = [
    [f"내일 {how} 비가 오는지 알려줘" for how in "아침에 낮에 저녁에 밤에 새벽에 정말 혹시 서울에 부산에 제주에".split()],
    [f"{dish} 어떻게 끓이는지 궁금해" for dish in "국을 찌개를 탕을 라면을 죽을 차를 물을 미역국을 된장국을 떡국을".split()],
]
KLUE = [
    {"premise": "방에 발코니가 있습니다.", "hypothesis": "발코니가 있는 방입니다.", "gold_label": "entailment"},
    {"premise": "방에 발코니가 있습니다.", "hypothesis": "발코니가 없습니다.", "gold_label": "contradiction"},
]
TEXTS = {
    "kor-nlu-datasets/KorNLI/xnli.dev.ko.tsv": [
        NLI_HEADER,
        "그는 웃었다.\t그가 웃음을 보였다.\tentailment",
        "a\tb\tneutral",
    ],
    "kor-nlu-datasets/KorNLI/xnli.test.ko.tsv": [NLI_HEADER, "해가 떴다.\t날이 밝았다.\tentailment"],
    "kor-nlu-datasets/KorSTS/sts-train.tsv": [
        STS_HEADER,
        "news\ta\t2024\t1\t4.000\t개가 달린다.\t개 한 마리가 뛴다.",
        "news\ta\t2024\t2\t3.999\t새가 난다.\t새가 하늘에 있다.",
        *(f"news\ta\t2024\t{n}\t{n % 4}\t개가 {n}번 짖는다.\t고양이가 {n}번 운다." for n in range(40)),
    ],
    "klue/klue-nli-v1.1_dev.json": [json.dumps(KLUE, ensure_ascii=False)],
    "paraKQC/paraKQC_v1.txt": [f"{topic}\t0\t{text}" for topic, texts in enumerate(WAYS) for text in texts],
    "question_pair/kor_pair_train.csv": [
        "\ufeffid,qid1,qid2,question1,question2,is_duplicate",
        "1,1,2,밥 먹었어?,식사했어?,0",
        "2,3,4,어디 가?,누구야?,1",
        '3,5,6,"이름이, 뭐야?",이름 알려줘,0',
        "4,7,8,뭐 해?,뭐 해?,0",
    ],
    "question_pair/kor_Pair_test.csv": [
        "\ufefftest_id,question1,question2,is_duplicate,",
        "1,몇 살이야?, ,0,",
        "2,지금 몇 시야?,몇 시지?,0,",
    ],
    "sae4k/sae4k_v1.txt": ["\ufeff불을 꺼 줄래\t불 끄기\t4", "창문 좀 열어 줘\t창문 열기\t4"],
}
STS_TEST_ROWS = [f"news\ta\t2024\t{n}\t{n % 6}\t개가 {n}번 짖는다.\t개가 {n % 3}번 운다." for n in range(12)]


@pytest.fixture
def data(tmp_path):
    for name, lines in TEXTS.items():
        path = tmp_path / "자료" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("sts-dev.tsv", "sts-test.tsv"):
        text = "\n".join([STS_HEADER, *STS_TEST_ROWS]) + "\n"
        (tmp_path / "자료" / "kor-nlu-datasets" / "KorSTS" / name).write_text(text, encoding="utf-8")
    return tmp_path / "자료"


def test_pairs_mean_the_same(data):
    examples, paths = ko_mini.load_examples(data, "pairs", seed=1)
    assert sorted(str(path.relative_to(data)) for path in paths) == sorted(TEXTS)
    assert all(example.label is None for example in examples)
    pairs = [example.texts for example in examples]
    paraphrases, others = pairs[:18], pairs[18:]
    for texts, chain in ((WAYS[0], paraphrases[:9]), (WAYS[1], paraphrases[9:])):
        assert [pair[1] for pair in chain[:-1]] == [pair[0] for pair in chain[1:]], "each way is next to two others"
        assert sorted([*(pair[0] for pair in chain), chain[-1][1]]) == sorted(texts)
    assert others == [
        ("밥 먹었어?", "식사했어?"),
        ("이름이, 뭐야?", "이름 알려줘"),
        ("지금 몇 시야?", "몇 시지?"),
        ("불을 꺼 줄래", "불 끄기"),
        ("창문 좀 열어 줘", "창문 열기"),
        ("그는 웃었다.", "그가 웃음을 보였다."),
        ("해가 떴다.", "날이 밝았다."),
        ("방에 발코니가 있습니다.", "발코니가 있는 방입니다."),
        ("개가 달린다.", "개 한 마리가 뛴다."),
    ]


def test_the_seed_decides_about_the_pairs(data):
    first, again, other = (ko_mini.load_examples(data, "pairs", seed)[0] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("model_type", list(ko_mini.MODEL_TYPES))
def test_a_new_model_reads_its_data_and_is_decided_by_the_seed(data, model_type):
    texts = [text for example in ko_mini.load_examples(data, "pairs", 1)[0] for text in example.texts]
    model = ko_mini.new_model(model_type, texts, seed=1)
    tokenized = model.tokenizer(texts)
    assert tokenized.unknown == 0
    assert model.folder.config["vocab_size"] == len(model.tokenizer.backend.get_vocab()) <= ko_mini.VOCABULARY_SIZE
    vectors = model.eval().encode(texts)
    assert np.isfinite(vectors).all()
    assert model.fingerprint() == ko_mini.new_model(model_type, reversed(texts), seed=1).fingerprint()
    assert model.fingerprint() != ko_mini.new_model(model_type, texts, seed=2).fingerprint()
    token = model.encoder.embeddings.token.weight
    assert token.std().item() == pytest.approx(ko_mini.TOKEN_STD, rel=0.05)


@pytest.mark.parametrize(
    ("name", "line"),
    {
        "klue/klue-nli-v1.1_dev.json": '{"premise": 1}',
        "paraKQC/paraKQC_v1.txt": "0\t0",
        "question_pair/kor_pair_train.csv": "질문1,질문2",
        "sae4k/sae4k_v1.txt": "불 꺼",
    }.items(),
)
def test_a_file_of_another_form_is_named(data, name, line):
    (data / name).write_text(f"{line}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"{(data / name).name}: not the file"):
        ko_mini.load_examples(data, "pairs", seed=1)


@pytest.mark.parametrize("name", ["ko-mini", "ko-mini-roberta", "ko-mini-bert"])
def test_the_recipe_ends_in_a_small_folder_and_repeats_itself(data, tmp_path, monkeypatch, name):
    tasks = (Task("pairs", "mnrl", 4), Task("sts", "cosine", 4))
    monkeypatch.setitem(RECIPES, name, dataclasses.replace(RECIPES[name], tasks=tasks))
    for output in ("하나", "둘"):
        command = ["--recipe", name, "--data", data, "-o", tmp_path / output, "--max-steps", 3, "--device", "cpu"]
        assert train.main(list(map(str, command))) == 0
    first, second = ((tmp_path / output / "model.safetensors").read_bytes() for output in ("하나", "둘"))
    assert first == second
    with safe_open(tmp_path / "둘" / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}
    config = json.loads((tmp_path / "둘" / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["torch_dtype"]) == (RECIPES[name].model_type, "float32")
    assert np.isfinite(SentenceEncoder.from_pretrained(tmp_path / "둘", device="cpu").encode("개가 달린다.")).all()


def test_a_length_that_the_model_cannot_have_is_refused(data, tmp_path, monkeypatch, capsys):
    tasks = (Task("pairs", "mnrl", 4), Task("sts", "cosine", 4))
    monkeypatch.setitem(RECIPES, "ko-mini", dataclasses.replace(RECIPES["ko-mini"], tasks=tasks))
    command = ["--recipe", "ko-mini", "--data", data, "-o", tmp_path / "out", "--max-length", 131, "--device", "cpu"]
    assert train.main(list(map(str, command))) == 2
    assert "max_seq_length can be at most 130 for this model, found 131" in capsys.readouterr().err


def test_a_missing_line_does_not_pair_different_questions(data):
    path = data / "paraKQC" / "paraKQC_v1.txt"
    path.write_text(path.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    with pytest.raises(InputError, match=r"paraKQC_v1\.txt:1: expected ten lines of one topic"):
        ko_mini.load_examples(data, "pairs", seed=1)


def test_the_recipe_needs_its_data(capsys, tmp_path):
    assert train.main(["--recipe", "ko-mini", "-o", str(tmp_path / "x")]) == 2
    assert "--data DIR" in capsys.readouterr().err
