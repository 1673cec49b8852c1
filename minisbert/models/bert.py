"""BERT: token + position + segment embeddings, then a stack of attention layers.

Paper: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", section 3 and figure 2.
Checked against transformers 5.24.0, `BertModel` (outputs, and gradients of every parameter, in float64).
The parts, their axis letters and where dropout falls: see layers.py. Neighbours: roberta.py counts positions in another way,
deberta_v2.py has another attention.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minisbert.models.config import EncoderConfig, Fields, encoder_fields
from minisbert.models.layers import Embeddings, bert_layers
from minisbert.models.tensor_names import UNUSED, TensorNames


@dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """The fields of config.json that BERT computes with: those that all encoders have."""

    @classmethod
    def from_fields(cls, fields: Fields) -> "BertConfig":
        """Read a parsed config.json; ModelError names a field that is missing, wrong, or asks for what is not supported."""
        return cls(**encoder_fields(fields, layer_norm_eps=1e-12, pad_token_id=0, least_segments=1))


class Bert(nn.Module):
    """The encoder: token ids in, one vector per token out."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = bert_layers(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """Encode a batch.

        Args:
            input_ids: (B, T) int64, 0 to vocab_size - 1, padded on the right; T at most `config.longest_text`.
            attention_mask: (B, T) bool, True = real token; None = all are.
            token_type_ids: (B, T) int64, 0 to type_vocab_size - 1; None = all 0.

        Returns:
            Token embeddings (B, T, D) in the dtype of the parameters; the vectors of padding mean nothing.
        """
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,): 0, 1, 2, ...
        x = self.embeddings(input_ids, positions, token_type_ids)  # (B, T, D)
        mask = None if attention_mask is None else attention_mask[:, None, None, :]  # (B, 1, 1, T)
        for layer in self.layers:
            x = layer(x, mask)
        return x


# In BERT's pre-training the first token went through one more layer, the pooler, to guess whether two texts follow one another.
# Sentence embeddings are made from the tokens themselves (pooling.py), so the pooler is skipped; its weights are kept only to
# be saved again, because other libraries look for them.
TENSOR_NAMES = TensorNames(
    prefix="bert.",
    modules={
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
    },
    pooler_weights=("pooler.dense.weight", "pooler.dense.bias"),
    unused={**UNUSED, "cls.*": "heads of pre-training: masked language model, next sentence"},
)
