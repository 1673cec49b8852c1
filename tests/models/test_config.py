"""Proves that a field of config.json is taken only if it is of the right type and within bounds, and is named if not."""

import pytest

from minisbert.errors import ModelError
from minisbert.models.config import choice, encoder_fields, flag, integer, number, only_supported
from minisbert.models.deberta_v2 import DebertaV2Config
from minisbert.models.registry import ARCHITECTURES
from tests.tiny import CONFIGS, ROWS


def read(model_type, fields):
    """The configuration of a tiny model with some fields changed."""
    return ARCHITECTURES[model_type].read_config({**CONFIGS[model_type], **fields})


def test_values_within_bounds_are_taken():
    fields = {"a": 3, "b": 0.5, "c": 1, "d": True, "e": "gelu", "f": None}
    assert integer(fields, "a", 3, 3) == 3
    assert integer(fields, "f", 0, 9, default=7) == 7
    assert number(fields, "b", 0, 1) == 0.5
    assert type(number(fields, "c", 0, 1)) is float
    assert flag(fields, "d", False) is True
    assert flag(fields, "absent", True) is True
    assert choice(fields, "e", ["gelu", "relu"]) == "gelu"
    assert choice(fields, "absent", ["a"], default="a") == "a"
    only_supported(fields, "f", 1)
    only_supported(fields, "absent", 1)
    only_supported(fields, "a", 3)


LEFT_OUT = ("layer_norm_eps", "pad_token_id")  # by old files


@pytest.mark.parametrize("value", [None, True, "3", 3.0, [3], {}, 2, 5, -(10**4000), 10**4000])
def test_what_is_no_whole_number_within_bounds(value):
    with pytest.raises(ModelError, match=r"^config\.json: layers .{0,200}$"):
        integer({"layers": value}, "layers", 3, 4)


@pytest.mark.parametrize("value", [None, True, "0.1", [0.1], -0.1, 1.1, float("nan"), float("inf"), 10**400, -(10**400)])
def test_what_is_no_number_within_bounds(value):
    with pytest.raises(ModelError, match=r"^config\.json: epsilon .{0,200}$"):
        number({"epsilon": value}, "epsilon", 0.0, 1.0)


@pytest.mark.parametrize("value", [0, 1, "true", [], {}])
def test_what_is_no_truth_value(value):
    with pytest.raises(ModelError, match=r"^config\.json: shared must be true or false"):
        flag({"shared": value}, "shared", True)


@pytest.mark.parametrize("value", [None, "swish", "GELU", 1, ["gelu"], {}])
def test_what_is_no_choice(value):
    with pytest.raises(ModelError, match=r"^config\.json: activation "):
        choice({"activation": value}, "activation", ["gelu", "relu"])


def test_what_would_change_the_mathematics():
    with pytest.raises(ModelError, match=r"^config\.json: width_factor = 2 is not supported, only 1$"):
        only_supported({"width_factor": 2}, "width_factor", 1)


@pytest.mark.parametrize(("model_type", "name"), [(each, name) for each, row in ROWS.items() for name in row.other_values])
def test_every_field_is_read(model_type, name):
    with pytest.raises(ModelError, match=rf"config\.json: {name}\b"):
        read(model_type, {name: {"a": 1}})


@pytest.mark.parametrize("model_type", [each for each, fields in CONFIGS.items() if "hidden_size" in fields])
@pytest.mark.parametrize("name", encoder_fields(CONFIGS["bert"], 1e-12, 0))
@pytest.mark.parametrize("value", [None, "1", -1, 10**9, [1]])
def test_every_common_field_is_checked(model_type, name, value):
    if value is None and name in LEFT_OUT:
        return
    with pytest.raises(ModelError, match=rf"config\.json: {name}\b"):
        read(model_type, {name: value})


@pytest.mark.parametrize(
    ("model_type", "epsilon", "padding"), [("bert", 1e-12, 0), ("roberta", 1e-12, 1), ("deberta-v2", 1e-7, 0)]
)
def test_what_old_files_leave_out(model_type, epsilon, padding):
    """The values are those of the configuration classes of transformers 5.23.0."""
    absent = {name: value for name, value in CONFIGS[model_type].items() if name not in LEFT_OUT}
    for fields in (absent, CONFIGS[model_type] | dict.fromkeys(LEFT_OUT)):
        config = ARCHITECTURES[model_type].read_config(fields)
        assert (config.layer_norm_eps, config.pad_token_id) == (epsilon, padding)


def test_what_a_deberta_leaves_out():
    """The values are those of the configuration class of transformers 5.23.0."""
    names = "relative_attention max_relative_positions position_buckets pos_att_type share_att_key norm_rel_ebd"
    own = {*names.split(), "position_biased_input"}
    config = DebertaV2Config.from_fields({k: v for k, v in CONFIGS["deberta-v2"].items() if k not in own})
    assert (config.relative_attention, config.share_att_key, config.norm_rel_ebd) == (False, False, "none")
    assert (config.max_relative_positions, config.position_buckets, config.pos_att_type) == (-1, -1, frozenset())
    assert config.position_biased_input is True


@pytest.mark.parametrize(
    ("model_type", "fields", "named"),
    [
        ("bert", {"num_attention_heads": 5}, "hidden_size 24 is not divisible by num_attention_heads 5"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings"),
        ("deberta-v2", {"embedding_size": 12}, "embedding_size"),
        ("deberta-v2", {"attention_head_size": 6}, "attention_head_size"),
        ("deberta-v2", {"conv_kernel_size": 3}, "conv_kernel_size"),
        ("deberta-v2", {"pos_att_type": ["c2p", "p2p"]}, "pos_att_type"),
        ("deberta-v2", {"pos_att_type": 7}, "pos_att_type"),
        ("deberta-v2", {"pos_att_type": []}, "pos_att_type"),
        ("deberta-v2", {"pos_att_type": [["c2p"]]}, "pos_att_type"),
        ("deberta-v2", {"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd"),
        ("deberta-v2", {"position_buckets": 3}, "position_buckets"),
        ("deberta-v2", {"share_att_key": "yes"}, "share_att_key"),
    ],
)
def test_what_an_architecture_does_not_support_is_named(model_type, fields, named):
    with pytest.raises(ModelError, match=rf"config\.json: .*{named}"):
        read(model_type, fields)
