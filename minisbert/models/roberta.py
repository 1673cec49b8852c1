"""RoBERTa and XLM-RoBERTa: BERT with another pre-training recipe and another way of counting positions.

Papers: Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach", section 3; Conneau et al. 2020,
"Unsupervised Cross-lingual Representation Learning at Scale" (XLM-R: the same encoder, a larger vocabulary).
Checked against transformers 5.23.0, `RobertaModel` (outputs, and gradients of every parameter, in float64).
Axis letters: see layers.py. Alike bert.py on purpose, but for `padding_aware_positions`: a real token is never at the first
pad_token_id + 1 of the P positions, so 514 positions serve 512 tokens.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from minisbert.errors import ModelError
from minisbert.models.config import Fields, encoder_fields, require
from minisbert.models.layers import EncoderLayer


@dataclass(frozen=True)
class RobertaConfig:
    """The fields of config.json that RoBERTa computes with, under the names they have there."""

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

    @classmethod
    def from_fields(cls, fields: Fields) -> "RobertaConfig":
        """Read a parsed config.json; ModelError names a field that is missing, wrong, or asks for what is not supported."""
        require(fields, "position_embedding_type", "absolute")
        require(fields, "is_decoder", False)
        require(fields, "add_cross_attention", False)
        config = cls(**encoder_fields(fields, layer_norm_eps=1e-12, pad_token_id=1))
        if config.type_vocab_size < 1 or config.longest_text < 1:
            raise ModelError(
                "config.json: type_vocab_size must be at least 1, max_position_embeddings more than pad_token_id + 1"
            )
        return config

    @property
    def longest_text(self) -> int:
        """The number of tokens, special ones included, that there are positions for."""
        return self.max_position_embeddings - self.pad_token_id - 1


def padding_aware_positions(input_ids: Tensor, pad_token_id: int) -> Tensor:
    """Count real tokens from pad_token_id + 1; padding stays at pad_token_id (fairseq, utils.make_positions).

    Args:
        input_ids: (B, T) int64.
        pad_token_id: the id of the padding token, also the position of padding.

    Returns:
        (B, T) int64.

    >>> import torch
    >>> padding_aware_positions(torch.tensor([[0, 9, 2], [0, 2, 1]]), pad_token_id=1)
    tensor([[2, 3, 4],
            [2, 3, 1]])
    """
    real = input_ids.ne(pad_token_id)  # (B, T)
    return real.cumsum(dim=1) * real + pad_token_id


class RobertaEmbeddings(nn.Module):
    """The sum of a token's, its position's and its segment's embedding, normalised."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(
            config.max_position_embeddings, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Map (B, T) int64 ids, and segments (None = all 0), to (B, T, D)."""
        positions = padding_aware_positions(input_ids, self.pad_token_id)  # (B, T)
        # Row 0 alone, (D,), is enough where every token is of segment 0: it is added to all by broadcasting.
        segments = self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids)
        x = self.token(input_ids) + segments + self.position(positions)  # (B, T, D)
        return self.dropout(self.norm(x))


class Roberta(nn.Module):
    """The encoder: token ids in, one vector per token out."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = RobertaEmbeddings(config)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width=config.hidden_size,
                heads=config.num_attention_heads,
                feed_forward_width=config.intermediate_size,
                activation=config.hidden_act,
                layer_norm_eps=config.layer_norm_eps,
                hidden_dropout=config.hidden_dropout_prob,
                attention_dropout=config.attention_probs_dropout_prob,
            )
            for _ in range(config.num_hidden_layers)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Encode a batch.

        Args:
            input_ids: (B, T) int64, 0 to vocab_size - 1, padded on the right; T at most `config.longest_text`.
            attention_mask: (B, T) bool, True = real token; None = all are.
            token_type_ids: (B, T) int64, 0 to type_vocab_size - 1; None = all 0.

        Returns:
            Token embeddings (B, T, D) in the dtype of the parameters; rows under padding mean nothing.
        """
        x = self.embeddings(input_ids, token_type_ids)  # (B, T, D)
        mask = None if attention_mask is None else attention_mask[:, None, None, :]  # (B, 1, 1, T)
        for layer in self.layers:
            x = layer(x, mask)
        return x


# Modules in a checkpoint -> modules above; {i} is the layer. Their tensors, weight and bias, have the same names in
# both. A masked-language model puts PREFIX before them.
PREFIX = "roberta."
MODULES = {
    "embeddings.word_embeddings": "embeddings.token",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.token_type",
    "embeddings.LayerNorm": "embeddings.norm",
    "encoder.layer.{i}.attention.self.query": "layers.{i}.attention.query",
    "encoder.layer.{i}.attention.self.key": "layers.{i}.attention.key",
    "encoder.layer.{i}.attention.self.value": "layers.{i}.attention.value",
    "encoder.layer.{i}.attention.output.dense": "layers.{i}.attention.output",
    "encoder.layer.{i}.attention.output.LayerNorm": "layers.{i}.attention_norm",
    "encoder.layer.{i}.intermediate.dense": "layers.{i}.feed_forward.expand",
    "encoder.layer.{i}.output.dense": "layers.{i}.feed_forward.contract",
    "encoder.layer.{i}.output.LayerNorm": "layers.{i}.feed_forward_norm",
}
# Read and written again but never computed with: sentence embeddings do not pass through the pooler.
CARRIED = ("pooler.dense.weight", "pooler.dense.bias")
# Known and left behind, with the reason; a final * stands for every name that starts so.
UNUSED = {
    "embeddings.position_ids": "0 to P - 1, stored by old versions of transformers",
    "lm_head.*": "head of pre-training: masked language model",
}
