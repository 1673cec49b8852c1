"""The default model in weights/, from nothing: open Korean data, a vocabulary made from them, and a small random encoder.

Data, each in a folder of its own under --data (CC BY-SA 4.0, except for the question pairs, which are MIT):
    kor-nlu-datasets   KorNLI xnli.dev and xnli.test, KorSTS     Ham et al. 2020
    klue               KLUE-NLI dev                              Park et al. 2021
    paraKQC            a thousand questions, ten ways each       Cho et al. 2020
    question_pair      questions that mean the same, or not      songys/Question_pair
    sae4k              requests with their key phrases           Cho et al. 2020
KorSTS dev picks the best model; KorSTS test is for the final score alone.
"""

import contextlib
import csv
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
import torch

from minisbert.errors import InputError
from minisbert.models.pooling import Pooling
from minisbert.models.registry import ARCHITECTURES
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.storage.folder import ModelFolder
from minisbert.text.rows import read_lines
from minisbert.text.tokenizer import Tokenizer
from minisbert.text.tokenizer_files import load_backend
from minisbert.training import corpora
from minisbert.training.examples import NLI_LABELS, Example, read_examples, read_nli

LICENCE = "cc-by-sa-4.0"  # model_card.md says why
VOCABULARY_SIZE = 4000
# fmt: off
SHAPE = {
    "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512, "hidden_act": "gelu",
    "max_position_embeddings": 130, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
}
DEBERTA = {
    "type_vocab_size": 0, "relative_attention": True, "position_buckets": 32, "max_relative_positions": -1,
    "pos_att_type": ["c2p", "p2c"], "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}
# fmt: on
MODEL_TYPES = {"bert": {}, "roberta": {}, "deberta-v2": DEBERTA}
# Token embeddings start larger than all else, so that at first a text is the mean of its tokens, which compares well already.
TOKEN_STD, OTHER_STD = 0.05, 0.02
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SAME_MEANING = 0.8  # KorSTS pairs with at least this label also serve as pairs of equal meaning


def load_examples(folder: Path, task: str, seed: int) -> tuple[list[Example], list[Path]]:
    """The examples of a task, "pairs" (two texts that mean the same) or "sts" (scored pairs), and their files.

    If a file is not as it was when this recipe was made, that is an InputError.
    """
    nli_files = [folder / "kor-nlu-datasets" / file.path for file in corpora.NLI_SMALL]
    klue_file = folder / "klue" / "klue-nli-v1.1_dev.json"
    sts_file = folder / "kor-nlu-datasets" / corpora.STS_TRAIN.path
    sts = read_examples(sts_file)
    if task == "sts":
        return sts, [sts_file]
    nli = [pair for file in nli_files for pair in read_nli(file)]
    with _must_fit(klue_file):
        records = json.loads(klue_file.read_text(encoding="utf-8"))
        nli += [(record["premise"], record["hypothesis"], record["gold_label"]) for record in records]
    question_files = [folder / "question_pair" / name for name in ("kor_pair_train.csv", "kor_Pair_test.csv")]
    paraphrase_file, request_file = folder / "paraKQC" / "paraKQC_v1.txt", folder / "sae4k" / "sae4k_v1.txt"
    pairs = _read_paraphrases(paraphrase_file, seed)
    pairs += [pair for file in question_files for pair in _read_questions(file)]
    requests = _tab_separated(request_file)  # each with the phrase that says what is asked for
    pairs += [Example((request, phrase)) for request, phrase, _ in requests if request.strip() and phrase.strip()]
    pairs += [Example((premise, hypothesis)) for premise, hypothesis, label in nli if label == NLI_LABELS[0]]
    pairs += [Example(example.texts) for example in sts if (example.label or 0.0) >= SAME_MEANING]
    return pairs, [paraphrase_file, *question_files, request_file, *nli_files, klue_file, sts_file]


def new_model(model_type: str, texts: Iterable[str], seed: int) -> SentenceEncoder:
    """A small model with random weights, by `seed`, and a vocabulary made from the texts, in whatever order they come.

    `model_type` is "bert", "roberta" or "deberta-v2".
    """
    vocabulary = _train_vocabulary(sorted(set(texts)))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": False}
    settings |= {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    settings_file = json.dumps(settings, indent=2).encode()
    files = {"vocab.txt": "\n".join(vocabulary).encode(), "tokenizer_config.json": settings_file}
    backend = load_backend(files, segments_of_pairs=False)
    vocabulary_fields = {"vocab_size": len(vocabulary), "pad_token_id": vocabulary.index("[PAD]")}
    fields = {"model_type": model_type, **vocabulary_fields, **SHAPE, **MODEL_TYPES[model_type]}
    architecture = ARCHITECTURES[model_type]
    config = architecture.read_config(fields)
    encoder = architecture.encoder(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 2:
            std = TOKEN_STD if name == "embeddings.token.weight" else OTHER_STD
            parameter.data.normal_(std=std, generator=generator)
        elif name.endswith("bias"):
            parameter.data.zero_()
    tokenizer = Tokenizer(backend, config.pad_token_id, config.longest_text, "[UNK]")
    return SentenceEncoder(encoder, Pooling(), tokenizer, ModelFolder(fields, files, settings))


def _train_vocabulary(texts: list[str]) -> list[str]:
    """The tokens of a WordPiece vocabulary, the same in every run."""
    trained = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    trained.pre_tokenizer = splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    # Of two equally frequent pairs of pieces, the one with the smaller ids is joined first. The package gives ids to the
    # pieces inside words in the order of a hash table, another one in each run, unless they have ids already.
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    inside = sorted({f"##{character}" for word in words for character in word[1:]})
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=[*SPECIAL_TOKENS, *inside], show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    ids = trained.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def _read_paraphrases(path: Path, seed: int) -> list[Example]:
    """Ten lines of equal meaning follow one another; neighbours in a random order of the ten become pairs."""
    rows = _tab_separated(path)
    generator = random.Random(seed)
    pairs = []
    for begin in range(0, len(rows), 10):
        topics, kinds, same = map(list, zip(*rows[begin : begin + 10], strict=True))
        if len(set(topics)) > 1 or len(set(kinds)) > 1:
            raise InputError(f"{path}:{begin + 1}: expected ten lines of one topic; download the file again")
        generator.shuffle(same)
        pairs += [Example(pair) for pair in itertools.pairwise(same)]
    return pairs


def _read_questions(path: Path) -> list[Example]:
    """Pairs of questions that mean the same, in different words.

    The column is_duplicate says 0 for them and 1 for pairs that mean different things, as the data's authors explain.
    """
    with _must_fit(path), path.open(encoding="utf-8-sig", newline="") as file:
        rows = [(row["question1"], row["question2"]) for row in csv.DictReader(file) if row["is_duplicate"] == "0"]
    return [Example((one, other)) for one, other in rows if one.strip() and other.strip() and one != other]


def _tab_separated(path: Path) -> list[list[str]]:
    """Rows of three values."""
    with path.open("rb") as file:
        rows = [line.split("\t") for line in read_lines(file, str(path))]
    with _must_fit(path):
        return [[first, second, third] for first, second, third in rows]


@contextlib.contextmanager
def _must_fit(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error):
        raise InputError(f"{path}: not the file that this recipe was made with; download it again") from None
