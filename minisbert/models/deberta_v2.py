"""DeBERTa-v2: attention that keeps apart what a token is and where it stands.

Papers: He et al. 2020, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", section 3 (the attention); He et al.
2021, "DeBERTaV3", and the authors' code for what v2 adds: logarithmic buckets, one LayerNorm over the relative table,
projections shared between content and position. Checked against transformers 5.24.0, `DebertaV2Model` (outputs, and gradients
of every parameter, in float64). Axis letters, and where dropout falls: see layers.py. bert.py adds positions to embeddings;
here they enter every score.

A score is the sum of up to three products (equation 4 of the paper). Positions count as distances q - k:

    score[q, k] = ( query[q]·key[k]                           content to content
                  + query[q]·relative_key[bucket(q - k)]      content to position, "c2p"
                  + key[k]·relative_query[bucket(q - k)] )    position to content, "p2c"
                  / sqrt(K · number of terms)

The paper writes bucket(k - q) in the last line; its authors' code, and with it every checkpoint, has bucket(q - k), so one list
of rows serves both terms. `plain_position_scores` is these two lines as code. The model computes the same with less. A text of
T tokens has only 2T - 1 distances, so every token is multiplied with that many rows, ordered by distance, and with one more
that is never used. Then each product must be moved to the pair of tokens it belongs to. The authors' code does it with a table
of indices (`torch.gather`). There is no need: the products that a token wants lie side by side, one place further left than
those of the token before, so `relative_shift` looks at the same memory with rows that are one element shorter (Dai et al. 2019,
"Transformer-XL", appendix B). This is what the unused row is for: T · 2T products, less the first T, are T rows of 2T - 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minisbert.errors import ModelError
from minisbert.models import config as read
from minisbert.models import fast
from minisbert.models.config import LARGEST_WIDTH, EncoderConfig, Fields
from minisbert.models.layers import encoder_layers, merge_heads, split_heads
from minisbert.models.tensor_names import UNUSED, TensorNames


@dataclass(frozen=True)
class DebertaV2Config(EncoderConfig):
    """The fields of config.json that DeBERTa-v2 computes with besides those that all encoders have."""

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
        common = read.encoder_fields(fields, layer_norm_eps=1e-7, pad_token_id=0)
        read.only_supported(fields, "embedding_size", common["hidden_size"])
        read.only_supported(fields, "attention_head_size", common["hidden_size"] // common["num_attention_heads"])
        read.only_supported(fields, "conv_kernel_size", 0)
        config = cls(
            **common,
            position_biased_input=read.flag(fields, "position_biased_input", True),
            relative_attention=read.flag(fields, "relative_attention", False),
            max_relative_positions=read.integer(fields, "max_relative_positions", -1, LARGEST_WIDTH, default=-1),
            position_buckets=read.integer(fields, "position_buckets", -1, LARGEST_WIDTH, default=-1),
            pos_att_type=read.subset(fields, "pos_att_type", {"c2p", "p2c"}),
            share_att_key=read.flag(fields, "share_att_key", False),
            norm_rel_ebd=read.choice(fields, "norm_rel_ebd", ["none", "layer_norm"], default="none"),
        )
        if config.relative_attention and not config.pos_att_type:
            raise ModelError("config.json: relative_attention is true, but pos_att_type names neither c2p nor p2c")
        if config.position_buckets > 0 and not 4 <= config.position_buckets < 2 * (config.max_distance - 1):
            raise ModelError(f"config.json: position_buckets must be -1, or from 4 to {2 * config.max_distance - 3}")
        return config

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

    Whether a word is 2 or 3 tokens away matters; 102 or 103 does not. Up to middle = buckets / 2, a distance is its own bucket;
    beyond, middle - 1 buckets are spread evenly over the logarithm of the distance, up to `max_distance` - 1, which is in
    bucket `buckets` - 1 (larger ones get larger buckets, which `table_rows` cuts off). Here buckets = 8 and max_distance = 32:

        distance   0  1  2  3  4 | 5 . 7 | 8 . . . . . 15 | 16 . . . . . . . . . 31 |
        bucket     0  1  2  3  4 |   5   |       6        |           7             |

    int64 in and out; a negative distance has the negative bucket. Computed in float32, as the reference does: in
    float64 a distance at a border could fall into the next bucket, which has other weights.

    >>> log_buckets(torch.tensor([-20, -4, -3, 0, 1, 4, 5, 7, 8, 15, 16, 31]), buckets=8, max_distance=32)
    tensor([-7, -4, -3,  0,  1,  4,  5,  5,  6,  6,  7,  7])
    """
    middle = buckets // 2
    size = distances.abs()
    growth = torch.log(size.clamp(min=1) / middle) / torch.log(torch.tensor((max_distance - 1) / middle))
    far = torch.ceil(growth * (middle - 1)).long() + middle
    return torch.where(size <= middle, distances, far * distances.sign())


def table_rows(distances: Tensor, config: DebertaV2Config) -> Tensor:
    """The row of the relative table for each distance q - k. int64 of any shape in, the same shape out, 0 to R - 1.

    Row 0 is bucket -span, the last row bucket span - 1. Distances beyond, to either side, share the row at that end.
    """
    if config.position_buckets > 0:
        distances = log_buckets(distances, config.position_buckets, config.max_distance)
    return (distances + config.span).clamp(0, 2 * config.span - 1)


def plain_position_scores(
    query: Tensor, key: Tensor, relative_key: Tensor | None, relative_query: Tensor | None, rows: Tensor
) -> Tensor:
    """The terms "c2p" and "p2c" as the paper writes them: look up a row for every pair of tokens. For readers and tests.

    Takes query and key (B, H, T, K), relative_key and relative_query (H, R, K), where None leaves the term out, and rows (T, T)
    int64, `table_rows` of the distances q - k. Returns (B, H, T, T) as [query, key], not yet scaled.
    """
    scores = torch.zeros_like(query @ key.transpose(-1, -2))  # (B, H, T, T)
    if relative_key is not None:
        scores = scores + torch.einsum("bhqd,hqkd->bhqk", query, relative_key[:, rows])
    if relative_query is not None:
        scores = scores + torch.einsum("bhkd,hqkd->bhqk", key, relative_query[:, rows])
    return scores


def relative_shift(by_distance: Tensor) -> Tensor:
    """From scores by distance to scores by token: out[..., i, j] = by_distance[..., i, T - i + j]. A view, no copy.

    Takes (..., T, 2T), the last two axes contiguous, and returns (..., T, T). In "c2p" row i is a query and column c distance
    i - j = T - c; in "p2c" row i is a key and column c distance j - i = c - T. Either way the pair (i, j) is in column
    c = T - i + j: what row i needs starts one column further left than in row i - 1. Cut T elements off the front and let rows
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


def by_rising_distance(by_falling_distance: Tensor) -> Tensor:
    """From rows for the distances T, T - 1, ..., -(T - 1) to rows where row c is distance c - T.

    In "p2c" keys are the rows of the product and queries its columns, so `relative_shift` wants the distances the other way
    round. Row 0 would be distance -T, which no two tokens have; what stands there does not matter.

        as it comes    3  2  1  0 -1 -2        T = 3
        .flip(0)      -2 -1  0  1  2  3
        .roll(1, 0)    3 -2 -1  0  1  2        row c is distance c - 3, except row 0

    >>> by_rising_distance(torch.tensor([[3], [2], [1], [0], [-1], [-2]])).flatten().tolist()
    [3, -2, -1, 0, 1, 2]
    """
    return by_falling_distance.flip(0).roll(1, 0)


class DisentangledAttention(nn.Module):
    """Attention whose scores see content and relative position (section 3.1 of the paper)."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.terms = config.pos_att_type
        # Each term has variance K (layers.py says why), and uncorrelated terms add their variances: three of them have 3K, two
        # 2K. The terms in the configuration count, even if relative_attention is false and none is computed. The reference
        # takes the root in float32 in models of every dtype; an exact one would change the scores of a float64 model in the
        # ninth digit.
        variance = D // self.heads * (1 + len(self.terms))
        self.scale = 1 / torch.tensor(variance, dtype=torch.float32, device="cpu").sqrt().item()
        self.dropout = config.attention_probs_dropout_prob
        self.table_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.query = fast.Linear(D, D)
        self.key = fast.Linear(D, D)
        self.value = fast.Linear(D, D)
        self.output = fast.Linear(D, D)
        # Without projections of their own, positions go through the `key` and `query` of the contents.
        own_projections = self.terms if config.relative_attention and not config.share_att_key else frozenset()
        self.relative_key = fast.Linear(D, D) if "c2p" in own_projections else None
        self.relative_query = fast.Linear(D, D) if "p2c" in own_projections else None

    def forward(self, x: Tensor, attention_mask: Tensor | None, table: Tensor | None, rows: Tensor | None) -> Tensor:
        """Let every token gather from all real tokens of its text.

        Args:
            x: (B, T, D) floating point.
            attention_mask: (B, 1, 1, T) bool, True = real token; None = all are.
            table: (R, D), the relative table; None = content alone.
            rows: (2T,) int64, the rows of the table for the distances T, T - 1, ..., -(T - 1); given with `table`.

        Returns:
            (B, T, D).
        """
        return self.output(self.mix(x, attention_mask, table, rows))

    def mix(self, x: Tensor, attention_mask: Tensor | None, table: Tensor | None, rows: Tensor | None) -> Tensor:
        """What the heads gather, side by side: (B, T, D)."""
        parts = fast.products(x, self.query, self.key, self.value)  # (B, T, D) each
        query, key, value = (split_heads(part, self.heads) for part in parts)
        bias = attention_mask  # what `fast.attention` adds to content to content: booleans, False = hidden, or numbers
        if table is not None and rows is not None:
            # Here positions are no part of the embeddings, so they missed the dropout there, and get it now. It falls on the
            # table, before its rows are repeated: all distances of a bucket lose the same.
            relative = self.table_dropout(table)[rows]  # (2T, D)
            bias = self.position_scores(query, key, relative)  # (B, H, T, T)
            if attention_mask is not None:
                bias = bias.masked_fill(~attention_mask, float("-inf"))
        dropout = self.dropout if self.training else 0.0
        return merge_heads(fast.attention(query, key, value, bias, dropout, self.scale))  # (B, T, D)

    def position_scores(self, query: Tensor, key: Tensor, relative: Tensor) -> Tensor:
        """The scaled sum of "c2p" and "p2c", (B, H, T, T); `relative` (2T, D) is ordered by falling distance."""
        scores = None
        # Scaled before the product: the 2T rows of distances are fewer numbers than the (T, T) scores.
        if "c2p" in self.terms:
            keys_by_distance = (self.relative_key or self.key)(relative) * self.scale  # (2T, D)
            scores = relative_shift(self.multiply_by_distance(query, keys_by_distance))  # (B, H, T, T) as [query, key]
        if "p2c" in self.terms:
            queries_by_distance = by_rising_distance((self.relative_query or self.query)(relative) * self.scale)  # (2T, D)
            from_key = relative_shift(self.multiply_by_distance(key, queries_by_distance)).transpose(-1, -2)  # (B, H, T, T)
            scores = from_key if scores is None else scores + from_key
        assert scores is not None
        return scores

    def multiply_by_distance(self, content: Tensor, relative: Tensor) -> Tensor:
        """Multiply (B, H, T, K) tokens with (2T, D) distances to (B, H, T, 2T).

        The distances are the same for all texts, so the B texts become one large product for each head.
        """
        B, H, T, K = content.shape
        tokens = content.transpose(0, 1).reshape(H, B * T, K)  # (H, B·T, K)
        distances = split_heads(relative, H).transpose(1, 2)  # (H, K, 2T)
        return torch.bmm(tokens, distances).view(H, B, T, 2 * T).transpose(0, 1)  # (B, H, T, 2T)


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
        self.layers = encoder_layers(config, lambda: DisentangledAttention(config))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """Encode a batch; arguments and result as in `bert.Bert`. Where type_vocab_size is 0, token types are ignored."""
        x = self.embeddings(input_ids, token_type_ids)  # (B, T, D)
        mask = None if attention_mask is None else attention_mask[:, None, None, :]  # (B, 1, 1, T)
        table = rows = None
        if self.relative_embeddings is not None:
            table = self.relative_norm(self.relative_embeddings.weight)  # (R, D)
            T = input_ids.shape[1]
            rows = table_rows(torch.arange(T, -T, -1, device=input_ids.device), self.config)  # (2T,)
        for layer in self.layers:
            x = layer(x, mask, table, rows)
        return x


TENSOR_NAMES = TensorNames(
    prefix="deberta.",
    modules={
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
    },
    unused={
        **UNUSED,
        "embeddings.position_embeddings.weight": "of the pre-training decoder, where position_biased_input is false",
        "cls.*": "head of pre-training: masked language model",
        "lm_predictions.*": "head of pre-training: masked language model",
        "mask_predictions.*": "head of pre-training: replaced-token detection",
        "pooler.*": "head of classification models",
    },
)
