"""Proves that tokens are those of the published tokenizers, whichever file they are built from."""

import base64
import contextlib
import json
import os

import numpy as np
import pytest
import tokenizers
from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer

from minisbert import SentenceEncoder
from minisbert.errors import InputError, ModelError, damage_is_model_error
from minisbert.text.tokenizer import Tokenizer
from minisbert.text.tokenizer_files import load_backend, token_content
from tests.model_files import charsmap, edit_json, refusal, xlm_roberta_folder
from tests.tiny import SENTENCES, VOCABULARY, tiny_folder, tokenizer_files

TEXTS = [*SENTENCES, "", "밥을 漢字 e\u0301 Ab[MASK]?\u200b\n", "없는단어", "ａ" * 120]


def changed(change) -> dict[str, bytes]:
    """The files of the tiny tokenizer with tokenizer.json changed."""
    description = json.loads(tokenizer_files()["tokenizer.json"])
    change(description)
    return {"tokenizer.json": json.dumps(description).encode()}


@pytest.mark.parametrize("settings", [{"do_lower_case": False}, {"do_lower_case": True}, {"strip_accents": True}, {}])
def test_vocab_txt_gives_what_the_package_makes_of_it(settings):
    files = {
        "vocab.txt": "\r\n".join(VOCABULARY).encode() + b"\n",
        "tokenizer_config.json": json.dumps(settings).encode(),
    }
    reference = BertWordPieceTokenizer(
        {token: number for number, token in enumerate(VOCABULARY)},
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
    )
    reference.add_special_tokens(["[MASK]"])
    backend = load_backend(files, segments_of_pairs=True)
    for text in TEXTS:
        assert backend.encode(text).ids == reference.encode(text).ids
    assert backend.encode("밥", "물").type_ids == reference.encode("밥", "물").type_ids


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_vocab_txt_gives_what_tokenizer_json_gives(model_type, tmp_path):
    folder = tiny_folder(tmp_path / "model", model_type)
    with_json = SentenceEncoder.from_pretrained(folder, device="cpu")
    (folder / "tokenizer.json").unlink()
    without = SentenceEncoder.from_pretrained(folder, device="cpu")
    np.testing.assert_array_equal(without.tokenizer(TEXTS).ids, with_json.tokenizer(TEXTS).ids)
    without.save_pretrained(tmp_path / "again")  # with a tokenizer.json again
    again = SentenceEncoder.from_pretrained(tmp_path / "again", device="cpu")
    assert (tmp_path / "again" / "tokenizer.json").exists()
    np.testing.assert_array_equal(again.tokenizer(TEXTS).ids, with_json.tokenizer(TEXTS).ids)
    assert with_json.tokenizer.backend.encode("밥", "물").type_ids == [0, 0, 0, *[int(model_type == "bert")] * 2]


def test_ids_by_hand():
    backend = load_backend(tokenizer_files("roberta"), segments_of_pairs=False)
    tokenizer = Tokenizer(backend, pad_token_id=1, max_seq_length=6, unknown_token="[UNK]")
    tokens = ["[CLS]", "남자", "##가", "밥", "[UNK]", "[SEP]"]
    texts = tokenizer(["남자가 밥 책 길 물", "밥", ""])
    assert texts.row(0).tolist() == [backend.token_to_id(token) for token in tokens]
    assert texts.lengths.tolist() == [6, 3, 2]
    assert (texts.truncated, texts.unknown, texts.not_nfc) == (1, 1, 0)
    input_ids, mask = tokenizer.pad(texts, [1, 2])
    assert input_ids.tolist() == [[0, backend.token_to_id("밥"), 2], [0, 2, 1]]
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert tokenizer.pad(texts, [1])[1] is None


def test_the_prompt():
    tokenizer = Tokenizer(load_backend(tokenizer_files(), True), 0, 40, "[UNK]")
    np.testing.assert_array_equal(tokenizer(["a밥"], prompt="b ").ids, tokenizer(["b a밥"]).ids)


def test_the_longest_text_can_be_changed():
    tokenizer = Tokenizer(load_backend(tokenizer_files(), True), 0, 40)
    tokenizer.max_seq_length = 3
    assert tokenizer(["밥 " * 9]).lengths.tolist() == [3]
    with pytest.raises(InputError, match=r"at least 3 \(2 are special tokens\), found 2"):
        tokenizer.max_seq_length = 2
    assert tokenizer.max_seq_length == 3


def test_xlm_roberta(tmp_path):
    folder = xlm_roberta_folder(tmp_path / "model")
    model = SentenceEncoder.from_pretrained(folder, device="cpu")
    tokens = "<s> ▁한 ▁남자 가 ▁밥 을 <unk> ▁먹 는다 </s>".split()
    ids = [model.tokenizer.backend.token_to_id(token) for token in tokens]
    texts = model.tokenizer(["한  남자가   밥을 x 먹는다", "한 남자가 ①을 x 먹는다"])
    assert [texts.row(0).tolist(), texts.row(1).tolist()] == [ids, ids]  # ① became 밥
    assert texts.unknown == 2
    assert np.isfinite(model.encode([*SENTENCES, "①" * 99])).all()
    model.save_pretrained(tmp_path / "again")
    again = SentenceEncoder.from_pretrained(tmp_path / "again", device="cpu")
    np.testing.assert_array_equal(again.encode(SENTENCES), model.encode(SENTENCES))
    config = json.loads((tmp_path / "again" / "config.json").read_bytes())
    assert (config["model_type"], config["architectures"]) == ("xlm-roberta", ["XLMRobertaModel"])


def test_the_bytes_of_roberta():
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    loaded = load_backend({"tokenizer.json": backend.to_str().encode()}, segments_of_pairs=False)
    for text in TEXTS:
        assert loaded.encode(text).ids == backend.encode(text).ids


# What a tokenizer.json may not ask for


@pytest.mark.parametrize(
    "pattern",
    [" {2,}", " +", "a", r"\s+", r"\n", "[\n\r\t]+", r"[\s ]{3,}", "▁", "a|b", r"\s{2,}|[\n\r\t]", "ab[^c]+|a+|밥을"],
)
def test_harmless_patterns(pattern):
    step = {"type": "Replace", "pattern": {"Regex": pattern}, "content": " "}
    load_backend(changed(lambda description: description.update(normalizer=step)), True)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+", "a*", "a{0,}", "a+b+", ".", "^a", "a$", r"\1", "(?i)a", "[a]+?", "[[a]&&b]", ""),
        *(
            "a+b",
            r"\s+\n",
            "a|b+c",
            "a|(b|c)+",
            "a?a",
            "a|",
            "|a",
            "a||b",
            "a++",
            "a{2,}{2,}",
            "a{100,}",
            "[a]b]",
            "a" * 201,
        ),
    ],
)
@pytest.mark.parametrize("place", ["normalizer", "pre_tokenizer", "decoder"])
def test_patterns_that_might_do_harm(pattern, place):
    replace = {"type": "Replace", "pattern": {"Regex": pattern}, "content": " "}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    step = {
        "normalizer": {"type": "Sequence", "normalizers": [replace]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split]},
        "decoder": {"type": "Sequence", "decoders": [replace]},
    }[place]
    with pytest.raises(ModelError, match=r"tokenizer\.json: the pattern"):
        load_backend(changed(lambda description: description.update({place: step})), True)


def test_every_table_that_is_taken_for_sound_is():
    """Flip every bit that matters in a table: whatever is then not refused must not make the package panic."""
    table = bytearray(base64.b64decode(charsmap("①", "밥")))
    refused = 0
    for bit in [bit for bit in range(8 * len(table)) if table[bit // 8] or bit < 32 or bit % 32 in (8, 9)]:
        table[bit // 8] ^= 1 << bit % 8
        step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
        files = changed(lambda description, step=step: description.update(normalizer=step))
        table[bit // 8] ^= 1 << bit % 8
        try:
            backend = load_backend(files, True)
        except ModelError:
            refused += 1
        else:  # what no text leads to may be wrong
            backend.encode("밥 ① ② Ⅷ ㈜ ﬁ 漢 \U0001f600 " + "".join(map(chr, range(1, 1000))))
    assert refused > 50


ROOT_OUTSIDE = base64.b64encode(b"\0\4\0\0" + b"\xff" * 4 + base64.b64decode(charsmap("①", "밥"))[8:]).decode()


@pytest.mark.parametrize("table", [None, 7, "", "AAAA", "밥", base64.b64encode(b"\0\4\0\0").decode(), ROOT_OUTSIDE])
def test_tables_that_are_none(table):
    step = {"type": "Precompiled", "precompiled_charsmap": table}
    with pytest.raises(ModelError, match="precompiled_charsmap is damaged"):
        load_backend(changed(lambda description: description.update(normalizer=step)), True)


def without_separator(description):
    del description["post_processor"]["special_tokens"]["[SEP]"]


def text_twice(description):
    description["post_processor"]["single"] *= 2


def second_text_alone(description):
    for piece in description["post_processor"]["single"]:
        if "Sequence" in piece:
            piece["Sequence"]["id"] = "B"


def special_tokens_twice(description):
    description["post_processor"] = {"type": "Sequence", "processors": [description["post_processor"]] * 2}


def fixed_length(description):
    description["pre_tokenizer"] = {"type": "FixedLength", "length": 0}


def without_unknown(description):
    description["model"]["unk_token"] = "[NONE]"


def deep(description):
    for _ in range(200):
        description["normalizer"] = {"type": "Sequence", "normalizers": [description["normalizer"]]}


@pytest.mark.parametrize(
    "change",
    [without_separator, text_twice, second_text_alone, special_tokens_twice, fixed_length, without_unknown, deep],
)
def test_what_would_fail_at_the_first_text_is_refused_at_once(change, capfd):
    with pytest.raises(ModelError, match=r"tokenizer\.json: ") as caught:
        load_backend(changed(change), True)
    assert str(caught.value).isprintable()
    assert capfd.readouterr().err == ""


def test_what_fails_later_is_one_line_too(capfd):
    backend = load_backend(tokenizer_files(), True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.FixedLength(0)  # as some other text might bring it about
    with pytest.raises(ModelError, match=r"tokenizer\.json: fails on one of the texts: chunk size") as caught:
        Tokenizer(backend, 0, 40)(["밥"])
    assert str(caught.value).isprintable()
    assert "panicked" in capfd.readouterr().err  # standard error is open while texts are encoded


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_no_damage_goes_through(error):
    with pytest.raises(error), damage_is_model_error("tokenizer.json"):
        raise error


def test_standard_error_is_open_again(capfd):
    for change in (fixed_length, lambda description: None):
        with contextlib.suppress(ModelError):
            load_backend(changed(change), True)
        os.write(2, b"here\n")
        assert capfd.readouterr().err == "here\n"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"vocab.txt": b"\xff"}, "not UTF-8 at byte 0"),
        ({"tokenizer_config.json": b'{"mask_token": 7}'}, "not described as tokens are"),
        ({"vocab.txt": b""}, "special tokens"),
        ({"vocab.txt": b"[PAD]\n[UNK]\n[CLS]"}, "SEP"),
        ({"tokenizer_config.json": b"{"}, "not valid JSON"),
        (
            {"tokenizer_config.json": b'{"tokenizer_class": "KoBertTokenizer"}'},
            "'KoBertTokenizer' needs a tokenizer.json",
        ),
        ({"tokenizer_config.json": b'{"tokenizer_class": ["BertTokenizer"]}'}, "needs a tokenizer.json"),
        ({"tokenizer_config.json": b'{"cls_token": "<s>"}'}, "<s>"),
        ({"special_tokens_map.json": b'{"cls_token": "<s>"}'}, "<s>"),
        ({"special_tokens_map.json": b'{"additional_special_tokens": 7}'}, "not described as tokens are"),
        ({"tokenizer_config.json": b'{"extra_special_tokens": [7]}'}, "not described as tokens are"),
        ({"tokenizer_config.json": b'{"added_tokens_decoder": {"x": {"content": "a"}}}'}, "not described as tokens are"),
        ({"tokenizer_config.json": b'{"added_tokens_decoder": {"4": {"content": 4}}}'}, "not described as tokens are"),
    ],
)
def test_vocabularies_that_are_not_of_bert(files, reason):
    files = {"vocab.txt": "\n".join(VOCABULARY).encode(), **files}
    with pytest.raises(ModelError, match=r"vocab\.txt|tokenizer_config\.json|added token") as caught:
        load_backend(files, True)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("added_tokens.json", {"[MASK]": 4, "[상품]": 99}),
        ("special_tokens_map.json", {"additional_special_tokens": ["[상품]"]}),
        ("tokenizer_config.json", {"additional_special_tokens": [{"content": "[상품]"}]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"goods": "[상품]"}}),
        ("tokenizer_config.json", {"goods_token": "[상품]"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"99": {"content": "[상품]"}}}),
    ],
)
@pytest.mark.parametrize("with_tokenizer_json", [False, True])
def test_an_added_token_is_one_piece_whatever_file_names_it(file, value, with_tokenizer_json):
    files = tokenizer_files()
    if not with_tokenizer_json:
        del files["tokenizer.json"]
    files[file] = json.dumps({**json.loads(files.get(file, "{}")), **value}).encode()
    expected = [2, VOCABULARY.index("밥"), len(VOCABULARY), VOCABULARY.index("밥"), 3]  # not in the vocabulary: the next id
    assert load_backend(files, True).encode("밥[상품]밥").ids == expected


def test_settings_of_odd_types(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (folder / name).unlink()
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(strip_accents="no"))
    assert "strip_accents must be true or false" in refusal(folder)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(strip_accents=None))
    SentenceEncoder.from_pretrained(folder, device="cpu").encode(SENTENCES)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(unk_token=["a"]))
    assert "unk_token must be texts" in refusal(folder)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(unk_token={"content": "[없음]"}))
    assert "vocab.txt: the special tokens" in refusal(folder)


def test_special_tokens_may_stand_in_all_their_files():
    files = {"vocab.txt": "\n".join(VOCABULARY).replace("[UNK]", "[모름]").encode()}
    files["special_tokens_map.json"] = '{"unk_token": {"content": "[모름]"}}'.encode()
    files["added_tokens.json"] = '{"[모름]": 1}'.encode()
    files["tokenizer_config.json"] = b'{"unk_token": "[UNK]"}'  # the map counts, as in transformers
    backend = load_backend(files, True)
    assert backend.encode("없는단어").tokens == ["[CLS]", "[모름]", "[SEP]"]


def test_a_newer_tokenizer_config_counts_alone():
    files = {"vocab.txt": "\n".join([*VOCABULARY, "[모름]"]).encode()}
    files["special_tokens_map.json"] = '{"unk_token": "[모름]"}'.encode()
    assert load_backend(files, True).encode("없는단어").tokens[1] == "[모름]"
    files["tokenizer_config.json"] = b'{"added_tokens_decoder": {"1": {"content": "[UNK]"}}}'
    assert load_backend(files, True).encode("없는단어").tokens[1] == "[UNK]"


def test_special_tokens_as_files_write_them():
    assert token_content("[UNK]") == "[UNK]"
    assert token_content({"content": "[UNK]", "lstrip": False}) == "[UNK]"
    assert token_content(None) is token_content({}) is token_content(7) is token_content({"content": 7}) is None
