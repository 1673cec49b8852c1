"""Which encoder computes a model: config.json's model_type -> configuration, encoder, names of its tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from minisbert.errors import ModelError
from minisbert.models import bert, deberta_v2, roberta
from minisbert.storage.folder import ModelFolder
from minisbert.storage.weights import Architecture


class Family(NamedTuple):
    """What one value of config.json's model_type stands for."""

    read_config: Callable[[dict[str, Any]], Any]
    encoder: type[nn.Module]
    architecture: Architecture
    class_name: str  # in transformers, for config.json

    def empty_encoder(self, config: Any) -> nn.Module:
        """An encoder of shapes alone: nothing is allocated before the checkpoint is known to fit."""
        with torch.device("meta"), _NoRandomInit():
            return self.encoder(config)


class _NoRandomInit(TorchFunctionMode):
    """Leaves out the random numbers of new embeddings: on the meta device, torch takes a second to prepare for them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if func is nn.init.normal_ else func(*args, **(kwargs or {}))


_BERT = Architecture(bert.PREFIX, bert.MODULES, bert.CARRIED, bert.UNUSED)
_ROBERTA = Architecture(roberta.PREFIX, roberta.MODULES, roberta.CARRIED, roberta.UNUSED)
_DEBERTA = Architecture(deberta_v2.PREFIX, deberta_v2.MODULES, deberta_v2.CARRIED, deberta_v2.UNUSED)
FAMILIES = {
    "bert": Family(bert.BertConfig.from_fields, bert.Bert, _BERT, "BertModel"),
    "roberta": Family(roberta.RobertaConfig.from_fields, roberta.Roberta, _ROBERTA, "RobertaModel"),
    "xlm-roberta": Family(roberta.RobertaConfig.from_fields, roberta.Roberta, _ROBERTA, "XLMRobertaModel"),
    "deberta-v2": Family(deberta_v2.DebertaV2Config.from_fields, deberta_v2.DebertaV2, _DEBERTA, "DebertaV2Model"),
}


def family_of(folder: ModelFolder) -> Family:
    """The family of the model in a folder; ModelError if none can compute it."""
    model_type = folder.config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ModelError(f"config.json: model_type {model_type!r:.80} is not supported, only {', '.join(FAMILIES)}")
    return FAMILIES[model_type]
