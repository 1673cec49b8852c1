"""What a trained model says about its training: README.md to read, training.json to look up.

The README.md has the form that sentence-transformers 5.x writes: model_card.md is its text, with gaps to be filled in here, and
huggingface_hub writes the front matter, with the scores as the Hub shows them.
"""

import importlib.metadata
import json
import math
import platform
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.errors import one_line
from minisbert.files import file_hash, replacing, write_json
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.training import ko_mini
from minisbert.training.evaluators import Evaluator
from minisbert.training.objectives import TrainingSet
from minisbert.training.recipes import RECIPES, Recipe

Scores = Mapping[str, float]
TEMPLATE = Path(__file__).with_name("model_card.md")
RECORD = "training.json"
PLACEHOLDER = "OWNER/NAME"  # in the lines of usage, until it is known where the model will lie
SAMPLES = 3
USAGE_SENTENCES = ("한 남자가 음식을 먹는다.", "한 남자가 빵 한 조각을 먹는다.", "치타가 먹이를 쫓아 들판을 달린다.")
PACKAGES = ("torch", "tokenizers", "safetensors", "huggingface-hub", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that computed."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def write_training_record(
    folder: Path,
    recipe: Recipe,
    flags: Mapping[str, str],
    sets: list[TrainingSet],
    before: Scores,
    after: Scores,
    seconds: float,
) -> None:
    """Write training.json into the folder of a trained model: what it was trained with.

    Args:
        folder: of the model.
        recipe: what it was trained with, flags included; where they changed a recipe of the table, that is said too.
        flags: the command line.
        sets: the data of every objective; of their files the hashes are written.
        before: the numbers of the final test before training; may be empty.
        after: and those of the trained model.
        seconds: what the training took, after an interruption that of the last run alone.
    """
    fields = recipe.record()
    published = RECIPES[recipe.name].record() if recipe.name in RECIPES else fields
    record = {
        "recipe": fields,
        "flags": flags,
        "overridden": {name: value for name, value in fields.items() if value != published.get(name)},
        "data": {path.name: {"git_hash": file_hash(path, "git")} for each in sets for path in each.paths},
        "scores_before": _without_nan(before),
        "scores": _without_nan(after),
        "seconds": round(seconds, 1),
        "versions": versions(),
    }
    write_json(folder / RECORD, record)


def _without_nan(scores: Scores) -> dict[str, float | None]:
    """The same for JSON, which has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def write_model_card(
    folder: Path,
    model: SentenceEncoder,
    recipe: Recipe,
    sets: list[TrainingSet],
    evaluator: Evaluator | None,
    before: Scores,
    after: Scores,
) -> None:
    """Write README.md into the folder of a trained model, which holds `model`; see `write_training_record` for the rest."""
    name = folder.resolve().name
    # Each once; Matryoshka has another one inside it.
    used = [loss for each in sets for loss in (each.loss, getattr(each.loss, "loss", each.loss))]
    losses = list(dict.fromkeys(type(loss).__name__ for loss in used))
    apart, unset = ("name", "base", "tasks", "korsts"), (None, ())
    settings = {key: value for key, value in recipe.record().items() if key not in apart and value not in unset}
    text = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        _about_model(model),
        front_matter=_front_matter(name, recipe, sets, losses, evaluator, after),
        name=name,
        origin=f"finetuned from {recipe.base} with minisbert" if recipe.base else "made from nothing with minisbert",
        base=recipe.base or "none",
        task="" if evaluator is None else evaluator.task,
        scores="\n".join(f"| {key} | {before[key]:.4f} | {value:.4f} |" for key, value in after.items()),
        training_sets="\n\n".join(_about_data(model, each) for each in sets),
        hyperparameters="\n".join(f"- `{key}`: {value}" for key, value in settings.items()),
        versions="\n".join(f"- {package}: {version}" for package, version in versions().items()),
    )
    cited = {"Sentence Transformers", *losses}
    if any(each.name in ("nli", "pairs", "sts") for each in sets):
        cited.add("KorNLI and KorSTS")
    for title, unused in (("Data and Licences", recipe.base is not None), ("Evaluation", evaluator is None)):
        if unused:
            text = re.sub(rf"^## {title}\n.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"#### (.*)\n\n```bibtex\n[^`]*```\n+", lambda found: found[0] if found[1] in cited else "", text)
    with replacing(folder / "README.md") as file:
        file.write((re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n").encode())


def _front_matter(
    name: str, recipe: Recipe, sets: list[TrainingSet], losses: list[str], evaluator: Evaluator | None, scores: Scores
) -> str:
    """What the Hub reads; tasks, data and metrics are named as sentence-transformers names them."""
    from huggingface_hub import EvalResult, ModelCardData  # imported here because it takes long

    results = []
    for key, value in scores.items():
        if evaluator is not None and not math.isnan(value):
            task_id, data = evaluator.task.lower().replace(" ", "-"), re.sub("[-_]", " ", evaluator.name)
            metric = key.removeprefix(f"{evaluator.name}_")
            title = metric.replace("_", " ").title()
            results.append(EvalResult(task_id, evaluator.name, data, metric, value, evaluator.task, metric_name=title))
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction"]
    open_korean = all(each.name != "own" for each in sets)
    base = (recipe.base or "").partition("@")[0]
    return ModelCardData(
        language=["ko"] if open_korean else None,
        license=ko_mini.LICENCE if open_korean else None,  # as KorNLI and KorSTS; of your own data only you know
        tags=[*tags, f"dataset_size:{sum(each.size for each in sets)}", *(f"loss:{loss}" for loss in losses)],
        base_model=base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) else None,  # a name on the Hub, not a folder
        pipeline_tag="sentence-similarity",
        library_name="sentence-transformers",
        model_name=name if results else None,
        eval_results=results or None,
    ).to_yaml()


def _about_model(model: SentenceEncoder) -> dict[str, object]:
    """What the card says about the model itself, with what it computes for the sentences of the usage."""
    width = model.embedding_dimension
    modules = [
        f"Transformer({{'max_seq_length': {model.max_seq_length}}}) with {type(model.encoder).__name__}",
        f"Pooling({{'word_embedding_dimension': {width}, 'pooling_mode': '{model.pooling.mode}'}})",
    ]
    if model.normalize:
        modules.append("Normalize()")
    vectors = model.encode(USAGE_SENTENCES, show_progress_bar=False)
    similarities = model.similarity(vectors, vectors).tolist()
    return {
        "length": model.max_seq_length,
        "width": width,
        "similarity": model.folder.similarity_fn_name,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "modules": "\n".join(f"  ({number}): {module}" for number, module in enumerate(modules)),
        "sentences": "\n".join(f"    {json.dumps(text, ensure_ascii=False)}," for text in USAGE_SENTENCES),
        "shape": vectors.shape,
        "similarities": "\n".join("# " + " ".join(f"{value:7.4f}" for value in row) for row in similarities),
    }


def _about_data(model: SentenceEncoder, each: TrainingSet) -> str:
    """What the card says about the data of one objective."""
    columns = [["", "type", "details"]]
    for number, texts in enumerate(zip(*(example.texts for example in each.examples), strict=True)):
        lengths = model.tokenizer(texts).lengths
        low, mean, high = lengths.min(), lengths.mean(), lengths.max()
        details = f"min: {low} tokens<br>mean: {mean:.2f} tokens<br>max: {high} tokens"
        columns.append([f"sentence_{number}", "string", details])
    samples = [[_cell(text) for text in example.texts] for example in each.examples[:SAMPLES]]
    labels = [example.label for example in each.examples if example.label is not None]
    if labels:
        details = f"min: {min(labels):.2f}<br>mean: {np.mean(labels):.2f}<br>max: {max(labels):.2f}"
        columns.append(["label", "float", details])
        samples = [[*cells, f"{label:.2f}"] for cells, label in zip(samples, labels, strict=False)]
    names = [column[0] for column in columns[1:]]
    parameters = json.dumps(_parameters(each.loss), ensure_ascii=False, indent=4).replace("\n", "\n  ")
    return f"""#### {each.name}

* Files: {", ".join(path.name for path in each.paths)}
* Size: {each.size:,} training samples
* Columns: {", ".join(f"<code>{name}</code>" for name in names)}
* Batch size: {each.batch_size}
* Approximate statistics based on the first {len(each.examples)} samples:
{_table(list(zip(*columns, strict=True)))}
* Samples:
{_table([names, *samples])}
* Loss: <code>{type(each.loss).__name__}</code> with these parameters:
  ```json
  {parameters}
  ```"""


def _parameters(loss: Any) -> dict[str, Any]:
    """The parameters of a loss; a loss inside it by its name."""
    return {
        name: {type(value).__name__: _parameters(value)} if is_dataclass(value) else value for name, value in vars(loss).items()
    }


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["  | " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "  |" + "---|" * len(rows[0]), *lines[1:]])


def _cell(text: str) -> str:
    """A text inside a Markdown table."""
    return "<code>" + one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;") + "</code>"
