"""What all models are made of: embeddings, attention, feed-forward, and the layer that puts the last two together.

Paper: Vaswani et al. 2017, "Attention Is All You Need", section 3. Checked against transformers 5.24.0 (bert.py, roberta.py).
Dropout falls after the embeddings, on the weights of attention, and on what each half of a layer adds; a test compares every
call of it with those of the reference (tests/parity/test_encoders.py).

Axis letters of the whole project:
    B batch      T tokens            D width        H heads        K = D / H head width
    V vocabulary P positions         R relative positions          M feed-forward width          N texts
Only in the formula of attention, Q, K and V are what the paper calls so: the matrices of queries, keys and values.

Masks are boolean, True = real token. `None` stands for "all tokens are real". Names of modules are those of the papers; what
checkpoints call them stands at the end of each model file. What is only there for speed is in fast.py, except for the relative
shift of DeBERTa. "The reference" is transformers or sentence-transformers, whose numbers this project must reproduce.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.models import fast

if TYPE_CHECKING:
    from minisbert.models.config import EncoderConfig


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(Q Kᵀ / sqrt(head width)) V: every token takes a weighted mean of all values (equation 1 of the paper).

    This is the plain form, for readers and tests; the models call `fast.attention`, which gives the same.

    Args:
        query: (B, H, T, K), what each token looks for.
        key: (B, H, T, K), what each token offers to be found by.
        value: (B, H, T, K), what each token hands over.
        mask: bool that broadcasts to (B, H, T, T), True = may be looked at; None = everything may be.
        dropout: probability of dropping a weight; 0 outside training.

    Returns:
        (B, H, T, K).

    A query that fits the second key far better than the first takes nearly all from the second value:

    >>> query, key = torch.tensor([[[[9.0]]]]), torch.tensor([[[[0.0], [1.0]]]])
    >>> attention(query, key, value=torch.tensor([[[[10.0], [20.0]]]])).item()
    19.99876594543457
    """
    # The dot product of two vectors of K independent numbers of mean 0 and variance 1 has variance K. Divided by sqrt(K) it has
    # variance 1 again, whatever the width: larger scores would leave one weight near 1, all others near 0, and hardly any
    # gradient.
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, T, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))  # exp(-inf) = 0: no weight at all
    weights = F.dropout(scores.softmax(dim=-1), dropout)  # (B, H, T, T), rows of sum 1
    return weights @ value  # (B, H, T, K)


class MultiHeadAttention(nn.Module):
    """Self-attention with H heads (section 3.2.2).

    One head gives each token one weighted mean. A word needs several: one over its subject, one over its object, one over its
    neighbours. So the width is cut into H parts of K = D / H numbers, each with weights of its own, for the cost of a single
    head of the whole width.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = fast.Linear(width, width)
        self.key = fast.Linear(width, width)
        self.value = fast.Linear(width, width)
        self.output = fast.Linear(width, width)  # mixes what the heads found

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Let every token gather from all real tokens of its text.

        Args:
            x: (B, T, D) floating point.
            attention_mask: (B, 1, 1, T) bool, True = real token; None = all are.

        Returns:
            (B, T, D).
        """
        return self.output(self.mix(x, attention_mask))

    def mix(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """What the heads gather, side by side: (B, T, D). Apart, for `fast.encoder_layer`, which has its own last product."""
        parts = fast.products(x, self.query, self.key, self.value)  # (B, T, D) each
        query, key, value = (split_heads(part, self.heads) for part in parts)
        dropout = self.dropout if self.training else 0.0
        return merge_heads(fast.attention(query, key, value, attention_mask, dropout))  # (B, T, D)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """From (..., T, D) to (..., H, T, K): head h gets the columns h·K to (h + 1)·K."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """From (B, H, T, K) to (B, T, D), the reverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


# The names that config.json uses. "gelu" is x Φ(x): Hendrycks & Gimpel 2016, section 2; "gelu_new" its approximation by tanh.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, token by token (section 3.3).

    Attention only mixes; here each token is worked on by itself, in M = 4D columns in most models. Without the activation two
    linear maps would be no more than one.
    """

    def __init__(self, width: int, feed_forward_width: int, activation: str) -> None:
        super().__init__()
        self.expand = fast.Linear(width, feed_forward_width)
        self.contract = fast.Linear(feed_forward_width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        return self.contract(self.activation(self.expand(x)))


class EncoderLayer(nn.Module):
    """One layer: attention, then feed-forward; each is added to what came in and normalised (figure 1 of the paper).

        x ──┬── attention ── dropout ── + ── norm ──┬── feed-forward ── dropout ── + ── norm ──
            └───────────────────────────┘           └──────────────────────────────┘

    The sum ("residual") lets a layer start as hardly more than a copy of its input, and lets gradients pass every layer. The
    norm stands after the sum ("post-norm"), as in the paper; most newer models norm before each part, but weights trained one
    way mean nothing the other way.
    """

    def __init__(
        self,
        attention: nn.Module,
        width: int,
        feed_forward_width: int,
        activation: str,
        norm_eps: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(width, eps=norm_eps)
        self.feed_forward = FeedForward(width, feed_forward_width, activation)
        self.feed_forward_norm = nn.LayerNorm(width, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *attention_inputs: Tensor | None) -> Tensor:
        """Map (B, T, D) to (B, T, D); what else the attention takes is handed on to it."""
        if not (self.training or torch.is_grad_enabled()):
            return fast.encoder_layer(self, x, *attention_inputs)  # encoding: the two lines below in fewer passes over memory
        x = self.attention_norm(x + self.dropout(self.attention(x, *attention_inputs)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class Embeddings(nn.Module):
    """What BERT and RoBERTa start from: token + position + segment, each a row of a table, normalised.

    The segment, or token type, is 0 for the first text of a pair and 1 for the second. A text alone is all 0.
    Attention treats a text as a set of tokens; the position says in which order they stand. (Devlin et al. 2018, figure 2.)
    """

    def __init__(self, config: "EncoderConfig", position_padding: int | None = None) -> None:
        super().__init__()
        # padding_idx: this row gets no gradient.
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=position_padding)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, positions: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Look up and add.

        Args:
            input_ids: (B, T) int64, 0 to V - 1.
            positions: (T,) or (B, T) int64, 0 to P - 1.
            token_type_ids: (B, T) int64; None = all 0.

        Returns:
            (B, T, D).
        """
        # Row 0 alone, (D,), is enough where every token is of segment 0: it is added to all by broadcasting.
        segments = self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids)
        x = self.token(input_ids) + segments + self.position(positions)  # (B, T, D)
        return self.dropout(self.norm(x))


def encoder_layers(config: "EncoderConfig", make_attention: Callable[[], nn.Module]) -> nn.ModuleList:
    """The layers of an encoder, each with an attention of its own."""
    return nn.ModuleList(
        EncoderLayer(
            make_attention(),
            width=config.hidden_size,
            feed_forward_width=config.intermediate_size,
            activation=config.hidden_act,
            norm_eps=config.layer_norm_eps,
            dropout=config.hidden_dropout_prob,
        )
        for _ in range(config.num_hidden_layers)
    )


def bert_layers(config: "EncoderConfig") -> nn.ModuleList:
    """The layers of BERT, which are those of RoBERTa too."""
    heads, dropout = config.num_attention_heads, config.attention_probs_dropout_prob
    return encoder_layers(config, lambda: MultiHeadAttention(config.hidden_size, heads, dropout))
