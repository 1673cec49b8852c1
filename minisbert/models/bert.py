"""BERT: token + position + segment embeddings, then a stack of post-norm attention layers.

Paper: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", section 3 and figure 2.
Checked against transformers 5.23.0, `BertModel` (outputs, and gradients of every parameter, in float64).
Axis letters: see layers.py. Neighbours: RoBERTa changes how positions are counted, DeBERTa-v2 changes attention.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minisbert.errors import ModelError
from minisbert.models.config import Fields, encoder_fields, require
from minisbert.models.layers import EncoderLayer


@dataclass(frozen=True)
class BertConfig:
    """The fields of config.json that BERT computes with, under the names they have there."""

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
    def from_fields(cls, fields: Fields) -> "BertConfig":
        """Read a parsed config.json; ModelError names a field that is missing, wrong, or asks for what is not supported."""
        require(fields, "position_embedding_type", "absolute")
        require(fields, "is_decoder", False)
        require(fields, "add_cross_attention", False)
        config = cls(**encoder_fields(fields, layer_norm_eps=1e-12, pad_token_id=0))
        if config.type_vocab_size < 1:
            raise ModelError("config.json: type_vocab_size must be at least 1")
        return config

    @property
    def longest_text(self) -> int:
        """The number of tokens, special ones included, that there are positions for."""
        return self.max_position_embeddings


class BertEmbeddings(nn.Module):
    """The sum of a token's, its position's and its segment's embedding, normalised (figure 2 of the paper)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Map (B, T) int64 ids, and segments (None = all 0), to (B, T, D)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,)
        # Row 0 alone, (D,), is enough where every token is of segment 0: it is added to all by broadcasting.
        segments = self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids)
        x = self.token(input_ids) + segments + self.position(positions)  # (B, T, D)
        return self.dropout(self.norm(x))


class Bert(nn.Module):
    """The encoder: token ids in, one vector per token out."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
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
PREFIX = "bert."
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
    "cls.*": "heads of pre-training: masked language model, next sentence",
}
