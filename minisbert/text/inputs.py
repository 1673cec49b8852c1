"""What `SentenceEncoder.encode` takes: texts in any row, and the options that code for sentence-transformers gives it."""

from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch

from minisbert.errors import InputError

# What else `SentenceTransformer.encode` takes: the values that have a meaning here, and what to do instead of others.
REFERENCE_OPTIONS: dict[str, tuple[list[Any], str]] = {
    "device": ([None], "move the model with model.to(device)"),
    "output_value": (["sentence_embedding", "token_embeddings"], "choose one of the two kinds"),
    "precision": ([None, "float32"], "encode.py --precision saves shorter numbers"),
    "pool": ([None], "one process encodes; start several with torchrun"),
    "chunk_size": ([None], "name the most rows of a batch with batch_size"),
}


def as_texts(sentences: object) -> list[str]:
    """The rows of a list, of a column of a table (pandas, datasets, numpy) or of an iterator; one text is a list of one.

    Raises:
        TypeError: it is something else, such as a whole table, or has no order.
    """
    kind = type(sentences).__name__
    if isinstance(sentences, str):
        return [sentences]
    if not isinstance(sentences, Iterable) or isinstance(sentences, bytes | bytearray):
        raise TypeError(f"sentences must be a text or a list of texts, found {kind}")
    if isinstance(sentences, Mapping) or getattr(sentences, "ndim", 1) != 1:
        raise TypeError(f"sentences must be a text or a list of texts, found {kind}, a table; choose one of its columns")
    if isinstance(sentences, Set):
        raise TypeError(f"sentences must be a text or a list of texts, found {kind}, which has no order; sort it into a list")
    return list(sentences)


def check_reference_options(options: dict[str, Any], device: torch.device) -> None:
    """Refuse by name what is not supported."""
    for name, value in options.items():
        if name not in REFERENCE_OPTIONS:
            raise TypeError(f"encode has no option {name!r}")
        supported, instead = REFERENCE_OPTIONS[name]
        if value not in supported and (name != "device" or torch.device(value) != device):
            raise InputError(f"encode does not support {name}={value!r}: {instead}")
