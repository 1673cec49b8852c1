"""What a trained model says about its training: README.md to read, training.json to look up.

The README.md has the form that sentence-transformers 5.x writes: data, losses, scores, usage.
"""

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.cli.display import printable
from minisbert.files import file_hash, replacing, write_json
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.storage.hub import is_hub_name
from minisbert.training import ko_mini as mini
from minisbert.training.examples import Example
from minisbert.training.losses import Loss
from minisbert.training.recipes import RECIPES, Recipe

COLUMN_NAMES = ("sentence_0", "sentence_1", "sentence_2")
SAMPLES = 3
USAGE_SENTENCES = ("한 남자가 음식을 먹는다.", "한 남자가 빵 한 조각을 먹는다.", "치타가 먹이를 쫓아 들판을 달린다.")
PACKAGES = ("torch", "tokenizers", "safetensors", "huggingface-hub", "numpy")
CITATIONS = {
    "Sentence Transformers": """@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing",
    year = "2019",
    publisher = "Association for Computational Linguistics",
    url = "https://arxiv.org/abs/1908.10084",
}""",
    "KorNLI and KorSTS": """@article{ham2020kornli,
    title = "KorNLI and KorSTS: New Benchmark Datasets for Korean Natural Language Understanding",
    author = "Ham, Jiyeon and Choe, Yo Joong and Park, Kyubyong and Choi, Ilji and Soh, Hyungjoon",
    journal = "arXiv preprint arXiv:2004.03289",
    year = "2020",
}""",
    "MultipleNegativesRankingLoss": """@misc{henderson2017efficient,
    title = "Efficient Natural Language Response Suggestion for Smart Reply",
    author = "Matthew Henderson and Rami Al-Rfou and Brian Strope and Yun-hsuan Sung and others",
    year = "2017",
    eprint = "1705.00652",
}""",
    "MatryoshkaLoss": """@misc{kusupati2022matryoshka,
    title = "Matryoshka Representation Learning",
    author = "Aditya Kusupati and Gantavya Bhatt and Aniket Rege and Matthew Wallingford and others",
    year = "2022",
    eprint = "2205.13147",
}""",
}


@dataclass(frozen=True)
class TrainingSet:
    """What the card says about the data of one objective."""

    name: str
    paths: tuple[Path, ...]
    examples: tuple[Example, ...]  # the first hundred, for statistics and samples
    size: int
    loss: Loss
    batch_size: int


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that computed."""
    return {
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def write_training_record(
    folder: Path,
    recipe: Recipe,
    flags: Mapping[str, str],
    sets: Sequence[TrainingSet],
    scores: Mapping[str, float],
    seconds: float,
) -> None:
    """Write training.json into the folder of a trained model: what it was trained with.

    Args:
        folder: of the model.
        recipe: what it was trained with, flags included.
        flags: the command line.
        sets: the data of every objective; of their files the hashes are written.
        scores: as for `write_model_card`.
        seconds: what the training took, after an interruption that of the last run alone.
    """
    record = {
        "recipe": asdict(recipe),
        "flags": flags,
        "overridden": _overridden(recipe),
        "data": {path.name: {"git_hash": file_hash(path, "git")} for each in sets for path in each.paths},
        "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},  # JSON has no NaN
        "seconds": round(seconds, 1),
        "versions": versions(),
    }
    write_json(folder / "training.json", record)


def _overridden(recipe: Recipe) -> dict[str, Any]:
    """The fields in which a recipe was changed by flags, with their new values."""
    original = RECIPES.get(recipe.name)
    if original is None:
        return {}
    fields, before = asdict(recipe), asdict(original)
    return {name: value for name, value in fields.items() if value != before[name]}


def write_model_card(
    folder: Path, model: SentenceEncoder, recipe: Recipe, sets: Sequence[TrainingSet], scores: Mapping[str, float]
) -> None:
    """Write README.md into the folder of a trained model.

    Args:
        folder: of the model.
        model: as it is in the folder.
        recipe: what it was trained with, flags included.
        sets: the data of every objective.
        scores: the numbers of the final test, "{data}_{correlation}_{function}"; may be empty.
    """
    losses = [_loss_name(each.loss) for each in sets]
    cited = {"Sentence Transformers", *(name for loss in losses for name in loss)}
    if any(each.name in ("nli", "pairs", "sts") for each in sets):
        cited.add("KorNLI and KorSTS")
    sections = [
        _front_matter(recipe, sets, losses),
        _description(model, recipe, folder.resolve().name),
        _usage(model, folder.resolve().name),
        mini.DATA_AND_LICENCES if recipe.base is None else "",
        _evaluation(scores),
        "## Training Details\n\n### Training Datasets",
        *(_training_set(model, each) for each in sets),
        _hyperparameters(recipe),
        "### Framework Versions\n\n" + "\n".join(f"- {name}: {version}" for name, version in versions().items()),
        "## Citation\n\n### BibTeX",
        *(f"#### {name}\n\n```bibtex\n{text}\n```" for name, text in CITATIONS.items() if name in cited),
    ]
    with replacing(folder / "README.md") as file:
        file.write(("\n\n".join(filter(None, sections)) + "\n").encode())


def _front_matter(recipe: Recipe, sets: Sequence[TrainingSet], losses: Sequence[list[str]]) -> str:
    tags = [
        "sentence-transformers",
        "sentence-similarity",
        "feature-extraction",
        f"dataset_size:{sum(s.size for s in sets)}",
    ]
    tags += list(dict.fromkeys(f"loss:{name}" for loss in losses for name in loss))
    korean = any(each.name != "own" for each in sets)
    lines = ["---", *(["language:", "- ko"] if korean else []), "tags:", *(f"- {tag}" for tag in tags)]
    if recipe.base and is_hub_name(recipe.base):
        lines.append(f"base_model: {recipe.base.partition('@')[0]}")
    if recipe.base is None:
        lines.append(f"license: {mini.LICENCE}")
    return "\n".join([*lines, "pipeline_tag: sentence-similarity", "library_name: sentence-transformers", "---"])


def _description(model: SentenceEncoder, recipe: Recipe, name: str) -> str:
    origin = f"finetuned from {recipe.base} with minisbert" if recipe.base else "made from nothing with minisbert"
    width = model.embedding_dimension
    normalize = "\n  (2): Normalize()" if model.folder.normalize else ""
    return f"""# {name}

This is a [sentence-transformers](https://www.SBERT.net) model {origin}. It maps sentences to a
{width}-dimensional dense vector space and can be used for semantic textual similarity, semantic search, paraphrase mining,
clustering and more.

## Model Details

- **Model Type:** Sentence Transformer
- **Base model:** {recipe.base or "none"}
- **Maximum Sequence Length:** {model.max_seq_length} tokens
- **Output Dimensionality:** {width} dimensions
- **Similarity Function:** {model.folder.similarity_fn_name}
- **Parameters:** {sum(parameter.numel() for parameter in model.parameters()):,}

### Full Model Architecture

```
SentenceTransformer(
  (0): Transformer({{'max_seq_length': {model.max_seq_length}}}) with {type(model.encoder).__name__}
  (1): Pooling({{'word_embedding_dimension': {width}, 'pooling_mode': '{model.pooling.mode}'}}){normalize}
)
```"""


def _usage(model: SentenceEncoder, name: str) -> str:
    vectors = model.encode(USAGE_SENTENCES, show_progress_bar=False)
    similarities = model.similarity(vectors, vectors).numpy()
    rows = "\n".join("# " + " ".join(f"{value:7.4f}" for value in row) for row in similarities)
    sentences = "\n".join(f"    {json.dumps(sentence, ensure_ascii=False)}," for sentence in USAGE_SENTENCES)
    return f"""## Usage

```python
from minisbert import SentenceEncoder  # or: from sentence_transformers import SentenceTransformer

model = SentenceEncoder.from_pretrained("{name}")  # or: SentenceTransformer("{name}")
sentences = [
{sentences}
]
embeddings = model.encode(sentences)
print(embeddings.shape)
# {vectors.shape}
print(model.similarity(embeddings, embeddings))
{rows}
```"""


def _evaluation(scores: Mapping[str, float]) -> str:
    if not scores:
        return ""
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in scores.items())
    return f"## Evaluation\n\n### Metrics\n\n#### Semantic Similarity\n\n| Metric | Value |\n|:-------|------:|\n{rows}"


def _training_set(model: SentenceEncoder, each: TrainingSet) -> str:
    columns = [list(column) for column in zip(*(example.texts for example in each.examples), strict=True)]
    names = list(COLUMN_NAMES[: len(columns)])
    details = []
    for column in columns:
        lengths = model.tokenizer(column).lengths
        details.append(
            f"min: {lengths.min()} tokens<br>mean: {lengths.mean():.2f} tokens<br>max: {lengths.max()} tokens"
        )
    types = ["string"] * len(columns)
    samples = [[_cell(text) for text in example.texts] for example in each.examples[:SAMPLES]]
    labels = [example.label for example in each.examples if example.label is not None]
    if labels:
        names, types = [*names, "label"], [*types, "float"]
        details.append(f"min: {min(labels):.2f}<br>mean: {np.mean(labels):.2f}<br>max: {max(labels):.2f}")
        samples = [[*cells, f"{label:.2f}"] for cells, label in zip(samples, labels, strict=False)]
    table = [["", *names], ["type", *types], ["details", *details]]
    parameters = json.dumps(_plain(each.loss), ensure_ascii=False, indent=4)
    files = ", ".join(path.name for path in each.paths)
    return f"""#### {each.name}

* Files: {files}
* Size: {each.size:,} training samples
* Columns: {", ".join(f"<code>{name}</code>" for name in names)}
* Batch size: {each.batch_size}
* Approximate statistics based on the first {len(each.examples)} samples:
{_table(table)}
* Samples:
{_table([names, *samples])}
* Loss: <code>{type(each.loss).__name__}</code> with these parameters:
  ```json
{_indent(parameters)}
  ```"""


def _hyperparameters(recipe: Recipe) -> str:
    fields = {name: value for name, value in asdict(recipe).items() if name not in ("name", "base", "tasks", "korsts")}
    return "### Training Hyperparameters\n\n" + "\n".join(f"- `{name}`: {value}" for name, value in fields.items())


def _loss_name(loss: Loss) -> list[str]:
    """The class of a loss and of the one inside it."""
    inner = getattr(loss, "loss", None)
    return [type(loss).__name__, *(_loss_name(inner) if inner is not None else [])]


def _plain(loss: Loss) -> dict[str, Any]:
    """The parameters of a loss, the one inside it by name."""
    assert is_dataclass(loss)
    fields = {name: getattr(loss, name) for name in loss.__dataclass_fields__}
    return {
        name: {type(value).__name__: _plain(value)} if is_dataclass(value) else value for name, value in fields.items()
    }


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["  | " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "  |" + "---|" * len(rows[0]), *lines[1:]])


def _cell(text: str) -> str:
    """A text inside a Markdown table."""
    return "<code>" + printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;") + "</code>"


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
