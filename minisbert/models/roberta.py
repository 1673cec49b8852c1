"""RoBERTa and XLM-RoBERTa: BERT with another pre-training and another way of counting positions.

Papers: Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach", section 3; Conneau et al. 2020,
"Unsupervised Cross-lingual Representation Learning at Scale" (XLM-R: the same encoder, a larger vocabulary). Checked against
transformers 5.24.0, `RobertaModel` (outputs, and gradients of every parameter, in float64). Axis letters, and where dropout
falls: see layers.py. What differs from bert.py: `padding_aware_positions`, and what follows from it. With pad_token_id 1, real
tokens have the positions 2, 3, 4, ...: 0 is never used and 1 is for padding, so 514 positions serve 512 tokens.
"""

import dataclasses
from dataclasses import dataclass

from torch import Tensor, nn

from minisbert.errors import ModelError
from minisbert.models import bert
from minisbert.models.config import EncoderConfig, Fields, encoder_fields
from minisbert.models.layers import Embeddings, bert_layers
from minisbert.models.tensor_names import UNUSED


@dataclass(frozen=True)
class RobertaConfig(EncoderConfig):
    """The fields of config.json that RoBERTa computes with: those that all encoders have."""

    @classmethod
    def from_fields(cls, fields: Fields) -> "RobertaConfig":
        """Read a parsed config.json; ModelError names a field that is missing, wrong, or asks for what is not supported."""
        config = cls(**encoder_fields(fields, layer_norm_eps=1e-12, pad_token_id=1, least_segments=1))
        if config.longest_text < 1:
            raise ModelError("config.json: max_position_embeddings must be more than pad_token_id + 1")
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
    return real.cumsum(dim=1) * real + pad_token_id  # counts 1, 2, 3, ...; `* real` sets padding back to 0


class Roberta(nn.Module):
    """The encoder: token ids in, one vector per token out."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, position_padding=config.pad_token_id)
        self.layers = bert_layers(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """Encode a batch; arguments and result as in `bert.Bert`."""
        positions = padding_aware_positions(input_ids, self.config.pad_token_id)  # (B, T)
        x = self.embeddings(input_ids, positions, token_type_ids)  # (B, T, D)
        mask = None if attention_mask is None else attention_mask[:, None, None, :]  # (B, 1, 1, T)
        for layer in self.layers:
            x = layer(x, mask)
        return x


TENSOR_NAMES = dataclasses.replace(  # all modules are called as in BERT
    bert.TENSOR_NAMES,
    prefix="roberta.",
    unused={**UNUSED, "lm_head.*": "head of pre-training: masked language model"},
)
