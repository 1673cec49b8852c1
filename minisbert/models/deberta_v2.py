"""DeBERTa-v2: attention that keeps apart what a token is and where it stands.

Papers: He et al. 2020, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", section 3 (the attention); He et al.
2021, "DeBERTaV3", and the authors' code for what v2 adds: logarithmic buckets, one LayerNorm over the relative table,
projections shared between content and position. Checked against transformers 5.23.0, `DebertaV2Model` (outputs, and gradients
of every parameter, in float64). Axis letters: see layers.py. bert.py adds positions to embeddings; here they enter every score.

A score is the sum of up to three products (equation 4 of the paper), over distances q - k:

    score[q, k] = ( query[q]·key[k]                           content to content
                  + query[q]·relative_key[bucket(q - k)]      content to position, "c2p"
                  + key[k]·relative_query[bucket(q - k)] )    position to content, "p2c"
                  / sqrt(K * number of terms)

The paper writes bucket(k - q) in the last line; its authors' code, and with it every checkpoint, has bucket(q - k), so one list
of rows serves both terms. A text of T tokens has only 2T - 1 distances, so no more rows than those (and one to fill up) are
multiplied, ordered by distance. What is then left is to move row r of each query to the key it belongs to, which needs no
gather: `relative_shift` finds the answer lying in memory already (Dai et al. 2019, "Transformer-XL", appendix B).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.errors import ModelError
from minisbert.models.config import LARGEST_WIDTH, Fields, choice, encoder_fields, flag, integer, require, subset
from minisbert.models.layers import FeedForward, Linear


@dataclass(frozen=True)
class DebertaV2Config:
    """The fields of config.json that DeBERTa-v2 computes with, under the names they have there."""

    vocab_size: int
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
    position_biased_input: bool
    relative_attention: bool
    max_relative_positions: int  # `max_distance`; below 1 = max_position_embeddings
    position_buckets: int  # below 1 = every distance is a bucket of its own
    pos_att_type: frozenset[str]  # a subset of {"c2p", "p2c"}
    share_att_key: bool
    norm_rel_ebd: str

    @classmethod
    def from_fields(cls, fields: Fields) -> "DebertaV2Config":
        """Read a parsed config.json; ModelError names a field that is missing, wrong, or asks for what is not supported."""
        common = encoder_fields(fields, layer_norm_eps=1e-7, pad_token_id=0)
        require(fields, "embedding_size", common["hidden_size"])
        require(fields, "attention_head_size", common["hidden_size"] // common["num_attention_heads"])
        require(fields, "conv_kernel_size", 0)
        config = cls(
            **common,
            position_biased_input=flag(fields, "position_biased_input", True),
            relative_attention=flag(fields, "relative_attention", False),
            max_relative_positions=integer(fields, "max_relative_positions", -1, LARGEST_WIDTH, default=-1),
            position_buckets=integer(fields, "position_buckets", -1, LARGEST_WIDTH, default=-1),
            pos_att_type=subset(fields, "pos_att_type", {"c2p", "p2c"}),
            share_att_key=flag(fields, "share_att_key", False),
            norm_rel_ebd=choice(fields, "norm_rel_ebd", ["none", "layer_norm"], default="none"),
        )
        if config.relative_attention and not config.pos_att_type:
            raise ModelError("config.json: relative_attention is true, but pos_att_type names neither c2p nor p2c")
        if config.position_buckets > 0 and not 4 <= config.position_buckets < 2 * (config.max_distance - 1):
            raise ModelError(f"config.json: position_buckets must be -1, or from 4 to {2 * config.max_distance - 3}")
        return config

    @property
    def longest_text(self) -> int:
        """The number of tokens, special ones included, that the model was made for."""
        return self.max_position_embeddings

    @property
    def max_distance(self) -> int:
        """Distances of this size and more, to either side, are not told apart from each other."""
        return self.max_relative_positions if self.max_relative_positions >= 1 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Half of the R rows of the relative table; row `span` is distance 0."""
        return self.position_buckets if self.position_buckets > 0 else self.max_distance


def log_buckets(distances: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Group distances: near ones keep a bucket each, far ones share buckets of growing width.

    With m = buckets / 2, a distance of at most m is its own bucket; beyond, m - 1 buckets are spread evenly over the logarithm
    of the distance, up to `max_distance` - 1 > m, which is in bucket `buckets` - 1. Computed in float32, as the reference does:
    a rounding in the other direction would move a whole bucket. int64 in and out; log_buckets(-d) = -log_buckets(d).

    >>> log_buckets(torch.tensor([-20, -4, -3, 0, 1, 4, 5, 7, 8, 20, 31]), buckets=8, max_distance=32)
    tensor([-7, -4, -3,  0,  1,  4,  5,  5,  6,  7,  7])
    """
    middle = buckets // 2
    size = distances.abs()
    growth = torch.log(size.clamp(min=1) / middle) / torch.log(torch.tensor((max_distance - 1) / middle))
    far = torch.ceil(growth * (middle - 1)).long() + middle
    return torch.where(size <= middle, distances, far * distances.sign())


def relative_rows(T: int, config: DebertaV2Config, device: torch.device) -> Tensor:
    """The rows of the relative table for distances T, T - 1, ..., 0, ..., -(T - 1), in this order.

    Distance T occurs in no text of T tokens; with it there are 2T rows, as `relative_shift` needs. int64, 0 to R - 1.
    """
    distances = torch.arange(T, -T, -1, device=device)
    if config.position_buckets > 0:
        distances = log_buckets(distances, config.position_buckets, config.max_distance)
    return (distances + config.span).clamp(0, 2 * config.span - 1)


def relative_shift(by_distance: Tensor) -> Tensor:
    """From scores by distance to scores by token: out[..., i, j] = by_distance[..., i, T - i + j]. A view, no copy.

    Takes (..., T, 2T), the last two axes contiguous, and returns (..., T, T). Column c of the input belongs to distance T - c,
    so the columns that row i needs start one further left than those of row i - 1. Cut T elements off the front and let rows
    be one element shorter, and they stand one under the other:

        T = 3; digits are rows i, the letters a, b, c mark j = 0, 1, 2

        . . . 0a 0b 0c            0a 0b 0c  .  .
        .  . 1a 1b 1c .    ->     1a 1b 1c  .  .     ->  the first T columns
        . 2a 2b 2c .  .           2a 2b 2c  .  .

    >>> relative_shift(torch.arange(8).view(2, 4))
    tensor([[2, 3],
            [5, 6]])
    """
    *batch, T, _ = by_distance.shape
    return by_distance.flatten(-2)[..., T:].view(*batch, T, 2 * T - 1)[..., :T]  # (..., T, T)


class DisentangledAttention(nn.Module):
    """x + Dropout(attention(x)), where scores see content and relative position (section 3.1 of the paper)."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.terms = config.pos_att_type
        # All terms that are configured count, also where only the first is computed for want of relative_attention.
        self.scale = (D // self.heads * (1 + len(self.terms))) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.dropout = config.hidden_dropout_prob
        self.query = Linear(D, D)
        self.key = Linear(D, D)
        self.value = Linear(D, D)
        self.output = Linear(D, D)
        # Where there are none, positions go through `key` and `query`, as contents do.
        own_projections = self.terms if config.relative_attention and not config.share_att_key else frozenset()
        self.relative_key = Linear(D, D) if "c2p" in own_projections else None
        self.relative_query = Linear(D, D) if "p2c" in own_projections else None

    def forward(self, x: Tensor, attention_mask: Tensor | None, table: Tensor | None, rows: Tensor | None) -> Tensor:
        """Let every token gather from all real tokens of its text.

        Args:
            x: (B, T, D) floating point.
            attention_mask: (B, 1, 1, T) bool, True = real token; None = all are.
            table: (R, D), the relative table; None = content alone.
            rows: (2T,) int64 from `relative_rows`, given with `table`.

        Returns:
            (B, T, D): x + Dropout(what was gathered), not yet normalised.
        """
        B, T, D = x.shape
        query = self.query(x).view(B, T, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
        key = self.key(x).view(B, T, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
        value = self.value(x).view(B, T, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
        bias = attention_mask  # a boolean mask hides; one of numbers is added to the scaled scores of the contents
        if table is not None and rows is not None:
            # Dropout falls on the table, before its rows are repeated: all distances of a bucket lose the same.
            relative = F.dropout(table, self.dropout, self.training)[rows]  # (2T, D)
            bias = self.position_scores(query, key, relative)  # (B, H, T, T)
            if attention_mask is not None:
                bias = bias.masked_fill(~attention_mask, float("-inf"))
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=self.scale)  # (B, H, T, K)
        return self.output.add_to(x, mixed.transpose(1, 2).reshape(B, T, D), self.dropout)  # (B, T, D)

    def position_scores(self, query: Tensor, key: Tensor, relative: Tensor) -> Tensor:
        """The scaled sum of "c2p" and "p2c", (B, H, T, T); `relative` (2T, D) is ordered by falling distance."""
        scores = None
        if "c2p" in self.terms:
            relative_key = (self.relative_key or self.key)(relative) * self.scale  # (2T, D)
            scores = relative_shift(self.by_distance(query, relative_key))  # (B, H, T, T) as [query, key]
        if "p2c" in self.terms:
            # Here rows are keys and columns queries, so column c must be distance c - T (column 0 is never reached).
            relative_query = (self.relative_query or self.query)(relative) * self.scale  # (2T, D)
            relative_query = relative_query.flip(0).roll(1, 0)  # (2T, D)
            from_key = relative_shift(self.by_distance(key, relative_query)).transpose(-1, -2)  # (B, H, T, T)
            scores = from_key if scores is None else scores + from_key
        assert scores is not None
        return scores

    def by_distance(self, content: Tensor, relative: Tensor) -> Tensor:
        """Multiply (B, H, T, K) tokens with (2T, D) distances to (B, H, T, 2T): one product a head, of B·T rows."""
        B, H, T, K = content.shape
        tokens = content.transpose(0, 1).reshape(H, B * T, K)  # (H, B·T, K)
        distance_rows = relative.view(2 * T, H, K).permute(1, 2, 0)  # (H, K, 2T)
        return torch.bmm(tokens, distance_rows).view(H, B, T, 2 * T).transpose(0, 1)  # (B, H, T, 2T)


class DebertaV2Layer(nn.Module):
    """Attention, then feed-forward, each followed by LayerNorm; residual and dropout are in them, as in layers.py."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.layer_norm_eps
        self.attention = DisentangledAttention(config)
        self.attention_norm = nn.LayerNorm(D, eps=eps)
        self.feed_forward = FeedForward(D, config.intermediate_size, config.hidden_act, config.hidden_dropout_prob)
        self.feed_forward_norm = nn.LayerNorm(D, eps=eps)

    def forward(self, x: Tensor, attention_mask: Tensor | None, table: Tensor | None, rows: Tensor | None) -> Tensor:
        """Map (B, T, D) to (B, T, D); the other arguments as in `DisentangledAttention`."""
        x = self.attention_norm(self.attention(x, attention_mask, table, rows))
        return self.feed_forward_norm(self.feed_forward(x))


class DebertaV2Embeddings(nn.Module):
    """Token embeddings, normalised; positions and segments are added only where the configuration has them."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        D, segments = config.hidden_size, config.type_vocab_size
        self.token = nn.Embedding(config.vocab_size, D, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, D) if config.position_biased_input else None
        self.token_type = nn.Embedding(segments, D) if segments > 0 else None
        self.norm = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Map (B, T) int64 ids, and segments (None = all 0), to (B, T, D)."""
        x = self.token(input_ids)  # (B, T, D)
        if self.position is not None:
            x = x + self.position(torch.arange(input_ids.shape[1], device=input_ids.device))
        if self.token_type is not None:
            x = x + (self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids))
        return self.dropout(self.norm(x))


class DebertaV2(nn.Module):
    """The encoder: token ids in, one vector per token out."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.layer_norm_eps
        self.config = config
        self.embeddings = DebertaV2Embeddings(config)
        self.relative_embeddings = nn.Embedding(2 * config.span, D) if config.relative_attention else None
        self.relative_norm = nn.LayerNorm(D, eps=eps) if config.norm_rel_ebd == "layer_norm" else nn.Identity()
        self.layers = nn.ModuleList(DebertaV2Layer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Encode a batch.

        Args:
            input_ids: (B, T) int64, 0 to vocab_size - 1, padded on the right; T at most `config.longest_text`.
            attention_mask: (B, T) bool, True = real token; None = all are.
            token_type_ids: (B, T) int64, 0 to type_vocab_size - 1; None = all 0; ignored where type_vocab_size is 0.

        Returns:
            Token embeddings (B, T, D) in the dtype of the parameters; rows under padding mean nothing.
        """
        x = self.embeddings(input_ids, token_type_ids)  # (B, T, D)
        mask = None if attention_mask is None else attention_mask[:, None, None, :]  # (B, 1, 1, T)
        table = rows = None
        if self.relative_embeddings is not None:
            table = self.relative_norm(self.relative_embeddings.weight)  # (R, D)
            rows = relative_rows(input_ids.shape[1], self.config, input_ids.device)  # (2T,)
        for layer in self.layers:
            x = layer(x, mask, table, rows)
        return x


# Modules in a checkpoint -> modules above; {i} is the layer. Their tensors, weight and bias, have the same names in both. A
# masked-language model puts PREFIX before them. Entries for parts that the configuration leaves out are not used.
PREFIX = "deberta."
MODULES = {
    "embeddings.word_embeddings": "embeddings.token",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.token_type",
    "embeddings.LayerNorm": "embeddings.norm",
    "encoder.rel_embeddings": "relative_embeddings",
    "encoder.LayerNorm": "relative_norm",
    "encoder.layer.{i}.attention.self.query_proj": "layers.{i}.attention.query",
    "encoder.layer.{i}.attention.self.key_proj": "layers.{i}.attention.key",
    "encoder.layer.{i}.attention.self.value_proj": "layers.{i}.attention.value",
    "encoder.layer.{i}.attention.self.pos_key_proj": "layers.{i}.attention.relative_key",
    "encoder.layer.{i}.attention.self.pos_query_proj": "layers.{i}.attention.relative_query",
    "encoder.layer.{i}.attention.output.dense": "layers.{i}.attention.output",
    "encoder.layer.{i}.attention.output.LayerNorm": "layers.{i}.attention_norm",
    "encoder.layer.{i}.intermediate.dense": "layers.{i}.feed_forward.expand",
    "encoder.layer.{i}.output.dense": "layers.{i}.feed_forward.contract",
    "encoder.layer.{i}.output.LayerNorm": "layers.{i}.feed_forward_norm",
}
CARRIED = ()  # it has no pooler
# Known and left behind, with the reason; a final * stands for every name that starts so.
UNUSED = {
    "embeddings.position_ids": "0 to P - 1, stored by old versions of transformers",
    "embeddings.position_embeddings.weight": "of the pre-training decoder, where position_biased_input is false",
    "cls.*": "head of pre-training: masked language model",
    "lm_predictions.*": "head of pre-training: masked language model",
    "mask_predictions.*": "head of pre-training: replaced-token detection",
    "pooler.*": "head of classification models",
}
