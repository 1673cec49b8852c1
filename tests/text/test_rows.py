"""Proves that every form of input gives its texts as they are, and that what is wrong is named with file and line."""

import io
import json

import pytest

from minisbert.errors import InputError, check_unicode
from minisbert.text import rows
from minisbert.text.rows import read_texts


def read(data, name="a.txt", field="text"):
    return list(read_texts(io.BytesIO(data if isinstance(data, bytes) else data.encode()), name, field))


def refusal(data, name="a.txt", field="text"):
    with pytest.raises(InputError) as error:
        read(data, name, field)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_empty_file_has_no_texts():
    assert read("") == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_a_line_is_a_text(end, last):
    assert read(end.join(["밥", "", "  빵 ", "물"]) + last.replace("\n", end)) == ["밥", "", "  빵 ", "물"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\r"])
def test_other_separators_are_characters_of_the_text(separator):
    text = f"밥{separator}빵"
    assert read(f"{text}\n물") == [text, "물"]
    line = json.dumps({"text": text}, ensure_ascii=False)
    assert read(f"{line}\n", "a.jsonl") == [text]
    assert read(f"text\n{text}\n", "a.tsv") == [text]
    assert read(f'text\n"{text}"\n', "a.csv") == [text]


@pytest.mark.parametrize(("name", "data"), [("a.txt", "밥"), ("a.tsv", "text\n밥"), ("a.csv", "text\n밥")])
def test_a_byte_order_mark_is_no_character(name, data):
    assert read(b"\xef\xbb\xbf" + data.encode(), name) == ["밥"]
    assert read(data + "\n\ufeff빵", name) == ["밥", "\ufeff빵"]  # but it is one elsewhere


def test_json_lines():
    assert read('{"id": 1, "text": "밥"}\n{"text": "\\ubc25 \\"\\n\\u2028"}\n', "a.JSONL") == ["밥", '밥 "\n\u2028']
    assert read('{"문장": "밥"}', "a.jsonl", "문장") == ["밥"]


def test_tsv_knows_no_quoting():
    data = 'id\tsentence1\tscore\n1\t"밥\t5\n2\t빵" 하나\t3\n'
    assert read(data, "sts.tsv", "sentence1") == ['"밥', '빵" 하나']


def test_csv_knows_quoting():
    data = 'id,text\n1,"밥, 빵"\n2,"그는 ""네""라고\n말했다."\n3,물\n'
    assert read(data, "a.csv") == ["밥, 빵", '그는 "네"라고\n말했다.', "물"]
    long = "가" * 200_000  # the csv module alone refuses 131,073 characters
    assert read(f'text\n"{long}"\n', "a.csv") == [long]
    assert read("text\n\n밥\n", "a.csv") == ["", "밥"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '{"text": "밥"}\n\n', "a.jsonl:2: not a line of JSON"),
        ("a.jsonl", '{"text": "밥"', "a.jsonl:1: not a line of JSON"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: not a line of JSON"),
        ("a.jsonl", '{"text": ' + "9" * 5000 + "}", "a.jsonl:1: not a line of JSON"),
        ("a.jsonl", '"밥"', "a.jsonl:1: no field 'text'; name the one that holds the text with --text-field"),
        ("a.jsonl", '{"Text": "밥"}', "a.jsonl:1: no field 'text'"),
        ("a.jsonl", '{"text": 7}', "a.jsonl:1: the field 'text' is not a text but int"),
        ("a.jsonl", '{"text": "\\udc00"}', "a.jsonl:1: the field 'text': character 1 is no Unicode character"),
        ("a.tsv", "", "a.tsv:1: no column 'text'"),
        ("a.tsv", "id\tsentence\n", "a.tsv:1: no column 'text'; choose with --text-field one of: id, sentence"),
        ("a.tsv", "id\ttext\n1\t밥\n2\n", "a.tsv:3: 1 columns, but the text is in column 2 ('text')"),
        ("a.csv", "", "a.csv:1: no column 'text'"),
        ("a.csv", 'id,text\n1,"밥\n빵"\n2\n', "a.csv:4: 1 columns, but the text is in column 2 ('text')"),
        ("a.csv", 'id,text\n1,밥\n2,"빵\n3,물\n', "a.csv:3: not CSV: unexpected end of data"),
        ("a.csv", 'text\n"밥" 빵\n', "a.csv:2: not CSV: "),
    ],
)
def test_what_is_wrong_is_named_with_its_line(name, data, message):
    assert refusal(data, name).startswith(message)


CP949 = "it looks like CP949, convert it: iconv -f cp949 -t utf-8"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "밥\n".encode() + "고양이는 물을 마신다.\n".encode("cp949"),
            f"a.txt:2: not UTF-8 (byte 1 of the line); {CP949}",
        ),
        ("고양이".encode("utf-16"), "a.txt:1: UTF-16, not UTF-8; convert it: iconv -f utf-16 -t utf-8"),
        ("고양이\n".encode("utf-16-be"), "a.txt:1: holds a NUL byte: a binary file, or UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.txt:1: not UTF-8 (byte 1 of the line); expected UTF-8 text"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "a.txt:1: holds a NUL byte"),
        (b"\x1f\x8b\x08\x08\xff", "a.txt:1: not UTF-8 (byte 2 of the line); expected UTF-8 text"),
        ("똠방각하".encode("cp949"), "a.txt:1: not UTF-8 (byte 1 of the line); expected UTF-8 text; if it is in CP949"),
        (b"a\xed\xa0\x80", "a.txt:1: not UTF-8 (byte 2 of the line)"),  # a surrogate in UTF-8
    ],
)
def test_E18_other_encodings_and_binary_files_are_named_with_a_hint(data, message):
    assert refusal(data).startswith(message)


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(rows, "LONGEST_LINE", 1 << 20)
    assert refusal("밥\n" + "a" * (1 << 20)) == "a.txt:2: longer than 1 MiB; expected lines of text"
    assert len(read("밥\n" + "a" * ((1 << 20) - 2) + "\n빵")) == 3


def test_texts_come_as_they_are_read():
    texts = read_texts(io.BytesIO("밥\n".encode() + b"\xff\n"), "a.txt")
    assert next(texts) == "밥"


def test_half_of_a_surrogate_pair_is_refused():
    check_unicode("밥 \U0001f35a", "TEXT")
    with pytest.raises(InputError, match="TEXT: character 2 is no Unicode character"):
        check_unicode("밥\ud83c", "TEXT")
