"""Proves that the published models give the published numbers; needs a network (`pytest -m hub`).

KorSTS test, from the result files of the models' repositories: Pearson and Spearman of cosine, Euclidean, Manhattan, dot. The
cosines of sentence pairs are from the models' cards and from users' published notebooks.
"""

import os
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceEncoder
from minisbert.evaluation import FUNCTIONS
from minisbert.training import corpora
from minisbert.training.evaluators import read_evaluator

pytestmark = pytest.mark.hub

KORSTS_URL = f"{corpora.REPOSITORY}/{corpora.COMMIT}/{corpora.STS_TEST.path}"

# fmt: off
KORSTS = {
    "jhgan/ko-sroberta-multitask": (0.8477045280392909, 0.8559956140722809, 0.8370636752767797, 0.8440079435411166, 0.8370234533153658, 0.8438439443425015, 0.8241822253054464, 0.8233260855548581),
    "jhgan/ko-sroberta-nli": (0.8282797271971932, 0.8384568099761461, 0.8287017625280234, 0.8329041603297936, 0.8288056108045755, 0.8328168038921644, 0.8033719545103778, 0.7968690389663012),
    "jhgan/ko-sbert-multitask": (0.8413392637855073, 0.8470722507409771, 0.8241765669771014, 0.8266489812524289, 0.8241478314072027, 0.8269338569293665, 0.8005123817355824, 0.7969341250647142),
    "jhgan/ko-sbert-nli": (0.822441302887688, 0.8315860698074092, 0.8219138412440101, 0.8231020395802463, 0.8218065249741794, 0.82299617187023, 0.7930471227376389, 0.7877806505699242),
    "upskyy/kf-deberta-multitask": (0.8574826210027622, 0.8625167208630782, 0.8478939146405619, 0.8524540783146085, 0.8480117776348778, 0.8527497844953591, 0.8293372739387574, 0.8286020232145503),
    # From the cards, which give four digits.
    "jhgan/ko-sroberta-sts": (0.8184, 0.8182, 0.8115, 0.8125, 0.8114, 0.8125, 0.7909, 0.7854),
    "jhgan/ko-sbert-sts": (0.8155, 0.8123, 0.7994, 0.7979, 0.7990, 0.7975, 0.7602, 0.7531),
}
# fmt: on

COSINES = {
    "jhgan/ko-sroberta-nli": (
        "첫인사를 하고 이름을 물어봤나요?",
        {
            "안녕하세요!": 0.58990162,
            "어! 오랜만이에요": 0.41826312,
            "이름이 어떻게 되세요?": 0.72406045,
            "날씨가 추워요": 0.05702663,
            "Hello LLM!": 0.43164183,
        },
    ),
    "jhgan/ko-sroberta-multitask": (
        "한 남자가 파스타를 먹는다.",
        {
            "한 남자가 음식을 먹는다.": 0.5892,
            "한 남자가 빵 한 조각을 먹는다.": 0.4919,
            "한 남자가 말을 탄다.": 0.1077,
            "한 여자가 바이올린을 연주한다.": -0.0296,
        },
    ),
    "upskyy/kf-deberta-multitask": (
        "한 투자자가 비트코인을 매수한다.",
        {
            "주식 시장에서 한 투자자가 주식을 매수한다.": 0.7579,
            "투자자들이 새로운 ICO에 참여하려고 하고 있다.": 0.4809,
            "금융 거래소에서 새로운 디지털 자산이 상장된다.": 0.4669,
        },
    ),
}


@pytest.fixture(scope="session")
def korsts(tmp_path_factory):
    path = os.environ.get("KORSTS_TEST")
    if path is None:
        path = tmp_path_factory.mktemp("korsts") / "sts-test.tsv"
        urllib.request.urlretrieve(KORSTS_URL, path)
    return read_evaluator(Path(path))


@pytest.mark.parametrize("name", KORSTS)
def test_korsts(name, korsts):
    found = korsts(SentenceEncoder.from_pretrained(name))
    numbers = [found[f"{correlation}_{function}"] for function in FUNCTIONS for correlation in ("pearson", "spearman")]
    np.testing.assert_allclose(numbers, KORSTS[name], atol=1e-4)


@pytest.mark.parametrize("name", COSINES)
def test_cosines(name):
    model = SentenceEncoder.from_pretrained(name)
    sentence, expected = COSINES[name]
    found = model.similarity(model.encode([sentence]), model.encode(list(expected)))[0]
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-4)
