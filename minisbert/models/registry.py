"""Which encoder computes a model: one row for each value that config.json's model_type may have."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from minisbert.errors import ModelError
from minisbert.models import bert, deberta_v2, roberta
from minisbert.models.tensor_names import TensorNames


class Architecture(NamedTuple):
    """What one model_type stands for."""

    read_config: Callable[[Mapping[str, Any]], Any]
    encoder: type[nn.Module]
    tensor_names: TensorNames
    class_name: str  # in transformers, for config.json
    tokenizer_class: str  # there, where no file names one

    def empty_encoder(self, config: Any) -> nn.Module:
        """An encoder of shapes alone: nothing is allocated before the checkpoint is known to fit."""
        with torch.device("meta"), _NoRandomInit():
            return self.encoder(config)


class _NoRandomInit(TorchFunctionMode):
    """Leaves out the random numbers of new embeddings: on the meta device, torch takes a second to prepare for them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if func is nn.init.normal_ else func(*args, **(kwargs or {}))


_ROBERTA = (roberta.RobertaConfig.from_fields, roberta.Roberta, roberta.TENSOR_NAMES)
ARCHITECTURES = {
    "bert": Architecture(bert.BertConfig.from_fields, bert.Bert, bert.TENSOR_NAMES, "BertModel", "BertTokenizer"),
    "roberta": Architecture(*_ROBERTA, "RobertaModel", "RobertaTokenizer"),
    "xlm-roberta": Architecture(*_ROBERTA, "XLMRobertaModel", "XLMRobertaTokenizer"),
    "deberta-v2": Architecture(
        deberta_v2.DebertaV2Config.from_fields,
        deberta_v2.DebertaV2,
        deberta_v2.TENSOR_NAMES,
        "DebertaV2Model",
        "DebertaV2Tokenizer",
    ),
}


def architecture_of(fields: Mapping[str, Any]) -> Architecture:
    """The row for a parsed config.json; ModelError if there is none."""
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ModelError(f"config.json: model_type {model_type!r:.80} is not supported, only {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[model_type]
