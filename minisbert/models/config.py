"""The fields of config.json that all encoders have, and how fields are read: one typed and bounded value at a time.

A configuration comes from strangers: 10^6 layers, `"12"` for 12, NaN for epsilon. Each model's frozen dataclass is
built with the readers below: a bad value ends in a `ModelError`, which names the field, before anything is allocated.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minisbert.errors import ModelError
from minisbert.models.layers import ACTIVATIONS

Fields = Mapping[str, Any]

LARGEST_WIDTH = 1 << 16  # hidden and feed-forward width, positions; ten times what published encoders use
LARGEST_VOCABULARY = 1 << 22
MOST_LAYERS = 256


@dataclass(frozen=True)
class EncoderConfig:
    """What the three architectures have in common, under the names of config.json.

    The rest of the program asks an encoder's configuration for `width`, `layers`, `segments`, `vocab_size`, `pad_token_id` and
    `longest_text` alone: an architecture whose fields have other names needs no more than these.
    """

    vocab_size: int  # V
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float

    @property
    def width(self) -> int:
        """D, the length of a token's vector."""
        return self.hidden_size

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.num_hidden_layers

    @property
    def longest_text(self) -> int:
        """The number of tokens, special ones included, that the model was made for."""
        return self.max_position_embeddings

    @property
    def segments(self) -> int:
        """How many segments a token can be of; with two, the second text of a pair is of segment 1."""
        return self.type_vocab_size


def integer(fields: Fields, name: str, low: int, high: int, default: int | None = None) -> int:
    """The whole number called `name`, from `low` to `high`; `default` where the field is absent."""
    value = _lookup(fields, name, default)
    if type(value) is not int:  # not isinstance: true is an int to Python
        raise ModelError(f"config.json: {name} must be a whole number, found {value!r:.50}")
    if not low <= value <= high:
        raise ModelError(f"config.json: {name} must be from {low} to {high}, found {value!s:.50}")
    return value


def number(fields: Fields, name: str, low: float, high: float, default: float | None = None) -> float:
    """The finite number called `name`, from `low` to `high`; `default` where the field is absent."""
    value = _lookup(fields, name, default)
    if type(value) not in (int, float):
        raise ModelError(f"config.json: {name} must be a number, found {value!r:.50}")
    if not low <= value <= high:  # true of NaN too
        raise ModelError(f"config.json: {name} must be from {low} to {high}, found {value!s:.50}")
    return float(value)


def flag(fields: Fields, name: str, default: bool) -> bool:
    """The truth value called `name`; `default` where the field is absent."""
    value = _lookup(fields, name, default)
    if type(value) is not bool:
        raise ModelError(f"config.json: {name} must be true or false, found {value!r:.50}")
    return value


def choice(fields: Fields, name: str, allowed: Sequence[str], default: str | None = None) -> str:
    """The text called `name`, one of `allowed`; `default` where the field is absent."""
    value = _lookup(fields, name, default)
    if not isinstance(value, str) or value not in allowed:
        raise ModelError(f"config.json: {name} must be one of {', '.join(allowed)}; {value!r:.50} is not supported")
    return value


def subset(fields: Fields, name: str, allowed: Collection[str]) -> frozenset[str]:
    """The texts called `name`, all of them `allowed`, as a list or as "a|b"; empty where the field is absent."""
    value = fields.get(name) or []
    texts = value.lower().split("|") if isinstance(value, str) else value
    if not isinstance(texts, list) or not {str(text).strip() for text in texts} <= set(allowed):
        raise ModelError(f"config.json: {name} {value!r:.50} is not supported, only some of {', '.join(sorted(allowed))}")
    return frozenset(text.strip() for text in texts)


def only_supported(fields: Fields, name: str, supported: Any) -> None:
    """Check that `name` is absent, null or equal to `supported`.

    Any other value would change the mathematics: ignored, it would give vectors that look right and are not.
    """
    value = fields.get(name)
    if value is not None and value != supported:
        raise ModelError(f"config.json: {name} = {value!r:.50} is not supported, only {supported!r}")


def encoder_fields(fields: Fields, layer_norm_eps: float, pad_token_id: int, least_segments: int = 0) -> dict[str, Any]:
    """Read the fields of `EncoderConfig`; `layer_norm_eps` and `pad_token_id` stand in where the oldest files have none."""
    hidden_size = integer(fields, "hidden_size", 1, LARGEST_WIDTH)
    vocab_size = integer(fields, "vocab_size", 1, LARGEST_VOCABULARY)
    heads = integer(fields, "num_attention_heads", 1, hidden_size)
    if hidden_size % heads:
        raise ModelError(f"config.json: hidden_size {hidden_size} is not divisible by num_attention_heads {heads}")
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": integer(fields, "num_hidden_layers", 1, MOST_LAYERS),
        "num_attention_heads": heads,
        "intermediate_size": integer(fields, "intermediate_size", 1, LARGEST_WIDTH),
        "hidden_act": choice(fields, "hidden_act", list(ACTIVATIONS)),
        "max_position_embeddings": integer(fields, "max_position_embeddings", 1, LARGEST_WIDTH),
        "type_vocab_size": integer(fields, "type_vocab_size", least_segments, LARGEST_WIDTH),
        "pad_token_id": integer(fields, "pad_token_id", 0, vocab_size - 1, default=pad_token_id),
        "layer_norm_eps": number(fields, "layer_norm_eps", 0.0, 1.0, default=layer_norm_eps),
        "hidden_dropout_prob": number(fields, "hidden_dropout_prob", 0.0, 1.0),
        "attention_probs_dropout_prob": number(fields, "attention_probs_dropout_prob", 0.0, 1.0),
    }


def _lookup(fields: Fields, name: str, default: Any) -> Any:
    if fields.get(name) is None and default is None:
        raise ModelError(f"config.json: {name} is missing")
    return default if fields.get(name) is None else fields[name]
