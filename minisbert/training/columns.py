"""What the columns of a table of pairs are for: by their names, and where these say nothing by their order."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from minisbert.errors import InputError, one_line

# What a column is for, and the names that say so: in small letters, what is no letter or digit as "_", which may be left out.
ROLES = {
    "left out": r"|unnamed_[\d_]+|(\w+_)?(id|idx|uid|guid|uuid)\d?|qid\d?|index|level_0|no|번호|source|genre|filename|file|year"
    r"|split|labels_binary_label|annotations_\w+|author|label[2-5]",
    "anchor": "anchor|query|question_?1?|sentence_?(1|a)|premise|text_?(1|a)|질문|문장_?1",
    "positive": "positive|pos|answer|question_?2|sentence_?(2|b)|hypothesis|text_?(2|b)|document|passage|답|답변|문장_?2",
    "negative": r"(hard_)?neg(ative)?s?_?\d*",
    "score": "scores?|labels_label|labels_real_label|점수",  # 0 (unrelated) to 5 (the same meaning), as in KorSTS and KLUE
    "label": "labels?|similarity|similarity_score",  # the cosine that the two texts shall have
    "class": "class|category|intent|group|분류|범주",  # texts of one class ask for each other, see evaluators.py
    "relation": "gold_label",  # of KorNLI and KLUE: entailment, neutral or contradiction
}


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they are for."""

    texts: tuple[str, ...]  # anchor, positive, and any number of negatives; of a table of classes the text alone
    score: str | None
    label: str | None
    group: str | None  # the class of the text
    relation: str | None
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        roles = ["text"] if self.group else ["anchor", "positive", *["negative"] * (len(self.texts) - 2)]
        parts = [f"{role} = {name or '(no name)'}" for role, name in zip(roles, self.texts, strict=True)]
        parts += [f"class = {self.group}"] if self.group else []
        parts += [f"label = {self.score} / 5"] if self.score else []
        parts += [f"label = {self.label}"] if self.label else []
        left_out = ", ".join(name or "(no name)" for name in self.left_out)
        line = ", ".join(parts) + (f"; left out: {left_out}" if left_out else "")
        return "".join(character if character.isprintable() else " " for character in line)


def choose_columns(names: Iterable[str], where: str) -> Columns:
    """Find out what every column is for: by a name of the table, wherever it stands; the others are texts, in their order.

    A class matters where there is one text alone; beside two, it is left out.

    Raises:
        InputError: two columns are for the same, or there are no two texts; the message begins with `where`.

    >>> print(choose_columns(["", "answer", "Question", "score"], "pairs.csv"))
    anchor = Question, positive = answer, label = score / 5; left out: (no name)
    """
    roles = {name: role_of(name) for name in names}
    if {"labels.label", "labels.real-label"} <= roles.keys():  # KLUE has the score twice; its benchmark takes the rounded one
        roles["labels.real-label"] = "left out"
    by_role = {role: [name for name in roles if roles[name] == role] for role in (*ROLES, "")}
    numbers = by_role["score"] + by_role["label"]
    for same in (by_role["anchor"], by_role["positive"], numbers, by_role["class"], by_role["relation"]):
        if len(same) > 1:
            raise InputError(f"{where}: the columns {same[0]!r:.60} and {same[1]!r:.60} are for the same; leave one out")
    free = by_role[""]
    if len(by_role["class"]) == 1 and len(free + by_role["anchor"] + by_role["positive"]) == 1:
        text = (free + by_role["anchor"] + by_role["positive"])[0]
        return Columns((text,), None, None, by_role["class"][0], None, tuple(by_role["left out"] + numbers))
    texts: list[str] = []
    for role in ("anchor", "positive"):
        found = by_role[role] or [free.pop(0) for _ in free[:1]]
        if not found:
            known = ", ".join(name or "(no name)" for name in roles)
            problem = f"no column for the {role} among {one_line(known)}"
            raise InputError(f"{where}: {problem}; expected two texts, such as anchor and positive, or text and class")
        texts += found
    texts += sorted(by_role["negative"], key=_number_in) + free
    score, label, relation = (next(iter(by_role[role]), None) for role in ("score", "label", "relation"))
    return Columns(tuple(texts), score, label, None, relation, tuple(by_role["left out"] + by_role["class"]))


def role_of(name: str) -> str:
    """What a column of this name is for; "" if the name does not say it.

    >>> role_of("Sentence 1"), role_of("negative_12"), role_of("물음")
    ('anchor', 'negative', '')
    """
    plain = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", name).lower()).strip("_")
    return next((role for role, pattern in ROLES.items() if re.fullmatch(pattern, plain)), "")


def _number_in(name: str) -> int:
    return int("".join(re.findall(r"\d", name)) or -1)
