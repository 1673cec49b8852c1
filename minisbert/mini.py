"""The default model in weights/, from nothing: open Korean data, a vocabulary made from them, and a small random encoder.

Data, each in a folder of its own under --data (CC BY-SA 4.0, but for the question pairs, which are MIT):
    kor-nlu-datasets   KorNLI xnli.dev and xnli.test, KorSTS     Ham et al. 2020
    klue               KLUE-NLI dev                              Park et al. 2021
    paraKQC            a thousand questions, ten ways each       Cho et al. 2020
    question_pair      questions that mean the same, or not      songys/Question_pair
    sae4k              requests with their key phrases           Cho et al. 2020
KorSTS dev picks the best model; KorSTS test is for the final score alone.
"""

import csv
import itertools
import json
import random
from pathlib import Path

import tokenizers
import torch

from minisbert import corpora
from minisbert.data import NLI_LABELS, Example, read_nli, sts_examples
from minisbert.folder import ModelFolder
from minisbert.pooling import Pooling
from minisbert.sentence_encoder import FAMILIES, SentenceEncoder
from minisbert.text_input import read_lines
from minisbert.tokenization import Tokenizer

# For the model card.
LICENCE = "cc-by-sa-4.0"
DATA_AND_LICENCES = """## Data and Licences

Trained from nothing, with a vocabulary of its own, on open Korean data: KorNLI (xnli.dev, xnli.test) and KorSTS (train; dev
picked the best model) by Kakao Brain, KLUE-NLI (dev) by the KLUE team, ParaKQC and sae4k by Won Ik Cho et al., all under
[CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/), and the question pairs of songys/Question_pair under the MIT
licence. The model is shared under CC BY-SA 4.0 likewise. KorSTS test was used for the scores below alone.

It is small, and it has seen little: good for trying things out, for texts like those above, and as a start for one's own
pairs; the published models of full size are better by far (see Evaluation, and compare their cards)."""
VOCABULARY_SIZE = 4000
SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_act": "gelu",
    "max_position_embeddings": 130,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
DEBERTA = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 32,
    "max_relative_positions": -1,
    "pos_att_type": ["c2p", "p2c"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}
MODEL_TYPES = {"bert": {}, "roberta": {}, "deberta-v2": DEBERTA}
# Token embeddings start larger than all else, so that at first a text is the mean of its tokens, which compares well already.
TOKEN_STD, OTHER_STD = 0.05, 0.02
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ALPHABET_SIZE = 1500  # syllables and other characters that get a token of their own
SAME_MEANING = 0.8  # KorSTS pairs with at least this label also serve as pairs of equal meaning


def load_examples(folder: Path, task: str, seed: int) -> tuple[list[Example], list[Path]]:
    """The examples of a task, and the files they come from.

    Args:
        folder: holds the five folders named above.
        task: "pairs" (two texts that mean the same) or "sts" (scored pairs).
        seed: of the draws.
    """
    nli_files = [folder / "kor-nlu-datasets" / file.path for file in corpora.NLI_SMALL]
    klue_file = folder / "klue" / "klue-nli-v1.1_dev.json"
    sts_file = folder / "kor-nlu-datasets" / corpora.STS_TRAIN.path
    nli = [pair for file in nli_files for pair in read_nli(file)] + _read_klue_nli(klue_file)
    sts = sts_examples(sts_file)
    if task == "sts":
        return sts, [sts_file]
    paraphrase_file, question_files, request_file = _pair_files(folder)
    pairs = _read_paraphrases(paraphrase_file, seed) + _read_questions(question_files) + _read_requests(request_file)
    pairs += [Example((premise, hypothesis)) for premise, hypothesis, label in nli if label == NLI_LABELS[0]]
    pairs += [Example(example.texts) for example in sts if (example.label or 0.0) >= SAME_MEANING]
    return pairs, [paraphrase_file, *question_files, request_file, *nli_files, klue_file, sts_file]


def new_model(model_type: str, folder: Path, seed: int) -> SentenceEncoder:
    """A small model with random weights and a vocabulary made from the data.

    Args:
        model_type: "bert", "roberta" or "deberta-v2".
        folder: as in `load_examples`.
        seed: of the weights.
    """
    examples = [example for task in ("pairs", "sts") for example in load_examples(folder, task, seed)[0]]
    backend = _train_tokenizer(sorted({text for example in examples for text in example.texts}))
    fields = {
        "model_type": model_type,
        "vocab_size": backend.get_vocab_size(),
        "pad_token_id": backend.token_to_id("[PAD]"),
        **SHAPE,
        **MODEL_TYPES[model_type],
    }
    family = FAMILIES[model_type]
    config = family.read_config(fields)
    encoder = family.encoder(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 2:
            std = TOKEN_STD if name == "embeddings.token.weight" else OTHER_STD
            parameter.data.normal_(std=std, generator=generator)
        elif name.endswith("bias"):
            parameter.data.zero_()
    tokenizer = Tokenizer(backend, config.pad_token_id, config.longest_text, "[UNK]")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": False, "unk_token": "[UNK]"}
    settings |= {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    files = {"tokenizer_config.json": json.dumps(settings, indent=2).encode()}
    return SentenceEncoder(encoder, Pooling(), tokenizer, ModelFolder(fields, files, settings))


def _train_tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        limit_alphabet=ALPHABET_SIZE,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    cls, sep = ("[CLS]", backend.token_to_id("[CLS]")), ("[SEP]", backend.token_to_id("[SEP]"))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[cls, sep]
    )
    backend.decoder = tokenizers.decoders.WordPiece()
    return backend


def _pair_files(folder: Path) -> tuple[Path, list[Path], Path]:
    questions = [folder / "question_pair" / name for name in ("kor_pair_train.csv", "kor_Pair_test.csv")]
    return folder / "paraKQC" / "paraKQC_v1.txt", questions, folder / "sae4k" / "sae4k_v1.txt"


def _read_klue_nli(path: Path) -> list[tuple[str, str, str]]:
    records = json.loads(path.read_text(encoding="utf-8"))
    return [(record["premise"], record["hypothesis"], record["gold_label"]) for record in records]


def _read_paraphrases(path: Path, seed: int) -> list[Example]:
    """Ten lines of equal meaning follow one another; neighbours in a random order of the ten become pairs."""
    sentences = [fields[-1] for fields in _tab_separated(path)]
    generator = random.Random(seed)
    pairs = []
    for begin in range(0, len(sentences), 10):
        same = sentences[begin : begin + 10]
        generator.shuffle(same)
        pairs += [Example(pair) for pair in itertools.pairwise(same)]
    return pairs


def _read_questions(paths: list[Path]) -> list[Example]:
    """Pairs of questions that are marked as duplicates."""
    pairs = []
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                if row["is_duplicate"] == "1" and row["question1"].strip() and row["question2"].strip():
                    pairs.append(Example((row["question1"], row["question2"])))
    return pairs


def _read_requests(path: Path) -> list[Example]:
    """Requests with the phrase that says what is asked for."""
    rows = _tab_separated(path)
    return [Example((request, phrase)) for request, phrase, _ in rows if request.strip() and phrase.strip()]


def _tab_separated(path: Path) -> list[list[str]]:
    with path.open("rb") as file:
        return [line.split("\t") for line in read_lines(file, str(path))]
