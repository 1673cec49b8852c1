"""Every key of the small settings files: what it does to a vector, and what is done with it here.

A key is obeyed, is known to have no effect on a vector, or may have certain values only: any other is refused with the
next step. A key in none of the tables warns once by name, for nobody can say what it would have done.
Collected from what sentence-transformers 2.0 to 6.2 and transformers 4.0 to 5.24 write. The fields of config.json that an
architecture computes with are obeyed or refused by its file in models/, and are not listed here; modules.json is read in
folder.py.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from minisbert.errors import ModelError

# Flag in 1_Pooling/config.json -> mode of pooling, in the order in which the vectors of several modes stand side by side.
LEGACY_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SPECIAL = "a token that is one piece wherever it stands in a text"
SPECIAL_TOKEN_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
SPECIAL_TOKENS = dict.fromkeys((*SPECIAL_TOKEN_KEYS, *_LISTS, "model_specific_special_tokens"), _SPECIAL)

# File -> key -> what it does.
OBEYED: dict[str, dict[str, str]] = {
    "config.json": {
        "model_type": "which architecture it is",
        "tokenizer_class": "which steps the tokenizer has, if tokenizer_config.json does not say",
    },
    "tokenizer_config.json": {
        **SPECIAL_TOKENS,
        "added_tokens_decoder": _SPECIAL,
        "tokenizer_class": "which steps the tokenizer has, whatever tokenizer.json says",
        "do_lower_case": "BERT: capital letters become small ones, and accents go",
        "strip_accents": "BERT: accents go; null = with the capital letters",
        "tokenize_chinese_chars": "BERT: each ideograph is a word",
        "add_prefix_space": "RoBERTa, XLM-RoBERTa, DeBERTa-v2: the first word is written as those inside a text",
        "model_max_length": "the longest text, if sentence_bert_config.json has none",
        "max_len": "the same, by its name in old versions",
        "truncation_side": "which end of a text that is too long is cut off",
        "split_special_tokens": "special tokens in a text are plain text",
    },
    "special_tokens_map.json": SPECIAL_TOKENS,
    "sentence_bert_config.json": {
        "max_seq_length": "the longest text",
        "do_lower_case": "capital letters become small ones before anything else",
        "tokenizer_args": "keys of tokenizer_config.json that win over those in the file",
        "processor_kwargs": "the same, by its name in new versions",
        "config_args": "keys of config.json that win over those in the file",
        "config_kwargs": "the same, by its name in new versions",
        "processing_kwargs": "its text.max_length is the longest text; nothing else in it is supported",
    },
    "config_sentence_transformers.json": {
        "prompts": "texts that are put before a text",
        "default_prompt_name": "the prompt that is put before a text if none is asked for",
        "similarity_fn_name": "how vectors are compared",
        "truncate_dim": "vectors are cut to their first columns",
    },
    "1_Pooling/config.json": {
        "pooling_mode": "how token vectors become a text vector; a list = side by side",
        **{flag: "the same in versions 2 to 5: true = this mode is one of those" for flag in LEGACY_POOLING_FLAGS},
    },
}
_NOTES = "a note on how the tokenizer was saved"
_PADDING = "how texts are padded: padding is masked, and on the right, so that it moves no positions"
_CALLS = "a default for direct calls of the tokenizer, which a sentence encoder overrides"
_OUTPUT = "about text that comes out of a tokenizer, not what goes in"
_SLOW = "for the tokenizers written in Python, which the reference no longer uses"
_BY_TOKENIZER = "the tokenizer's files say it"
_TRAINING = "about training, or about a head for another task"
_RUNNING = "how transformers runs the model, not what it computes; the dtype is an option of from_pretrained"
_GENERATION = "about writing text"
WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    "config.json": {
        **dict.fromkeys(("_name_or_path", "name_or_path", "architectures", "transformers_version", "_commit_hash"), _NOTES),
        **dict.fromkeys(("auto_map", "sentence_transformers", "export_model_type", "language"), _NOTES),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id"), _BY_TOKENIZER),
        **dict.fromkeys(("initializer_range", "initializer_factor", "gradient_checkpointing"), _TRAINING),
        **dict.fromkeys(("tie_word_embeddings", "pooler_hidden_act", "pooler_hidden_size"), _TRAINING),
        **dict.fromkeys(("classifier_dropout", "id2label", "label2id", "num_labels", "_num_labels", "problem_type"), _TRAINING),
        **dict.fromkeys(("finetuning_task", "task_specific_params", "legacy", "conv_act", "directionality"), _TRAINING),
        **dict.fromkeys(("pooler_dropout", "pooler_type", "pooler_fc_size"), _TRAINING),
        **dict.fromkeys(("pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"), _TRAINING),
        **dict.fromkeys(("dtype", "torch_dtype", "torchscript", "use_bfloat16", "tf_legacy_loss", "return_dict"), _RUNNING),
        **dict.fromkeys(("output_attentions", "output_hidden_states", "output_past", "use_cache"), _RUNNING),
        **dict.fromkeys(("attn_implementation", "_attn_implementation", "_attn_implementation_autoset"), _RUNNING),
        **dict.fromkeys(("_attn_implementation_internal", "trust_remote_code"), _RUNNING),
        **dict.fromkeys(("chunk_size_feed_forward", "is_encoder_decoder", "cross_attention_hidden_size"), _RUNNING),
        **dict.fromkeys(("tie_encoder_decoder", "decoder_start_token_id", "forced_bos_token_id", "prefix"), _GENERATION),
        **dict.fromkeys(("forced_eos_token_id", "max_length", "min_length", "do_sample", "early_stopping"), _GENERATION),
        **dict.fromkeys(("num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p"), _GENERATION),
        **dict.fromkeys(("typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"), _GENERATION),
        **dict.fromkeys(("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"), _GENERATION),
        **dict.fromkeys(("output_scores", "return_dict_in_generate", "remove_invalid_values"), _GENERATION),
        **dict.fromkeys(("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"), _GENERATION),
    },
    "tokenizer_config.json": {
        **dict.fromkeys(("name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file"), _NOTES),
        **dict.fromkeys(("full_tokenizer_file", "from_slow", "backend", "is_local", "local_files_only"), _NOTES),
        **dict.fromkeys(("processor_class", "init_inputs", "use_fast", "legacy", "verbose", "vocab_type"), _NOTES),
        **dict.fromkeys(("fast_tokenizer_files", "_commit_hash", "token", "trust_remote_code"), _NOTES),
        **dict.fromkeys(("padding_side", "pad_token_type_id", "pad_to_multiple_of", "padding", "pad_token_id"), _PADDING),
        **dict.fromkeys(("max_length", "stride", "truncation_strategy", "truncation", "return_tensors"), _CALLS),
        **dict.fromkeys(("model_input_names", "return_token_type_ids", "return_attention_mask"), _CALLS),
        **dict.fromkeys(("clean_up_tokenization_spaces", "errors", "trim_offsets", "chat_template"), _OUTPUT),
        **dict.fromkeys(("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",), _OUTPUT),
        **dict.fromkeys(("response_template", "response_schema", "chat_control_tokens"), _OUTPUT),
        **dict.fromkeys(("do_basic_tokenize", "never_split", "sp_model_kwargs", "unk_id", "fix_mistral_regex"), _SLOW),
        **dict.fromkeys(("add_bos_token", "add_eos_token", "wordpieces_prefix", "clean_text", "keep_accents"), _SLOW),
        "auto_map": "names code, which is not run",
    },
    "special_tokens_map.json": {},
    "sentence_bert_config.json": {"unpad_inputs": _PADDING},
    "config_sentence_transformers.json": {"__version__": "the versions that saved the model"},
    "1_Pooling/config.json": dict.fromkeys(("word_embedding_dimension", "embedding_dimension"), "D, as config.json has it"),
}
# File -> key -> the values with which the key changes nothing, and what to do about any other.
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_RESAVE = "load the model with sentence-transformers, undo this setting and save it again"
_ONLY_DENSE = "only models that make one vector of each text can be loaded"
ONLY: dict[str, dict[str, tuple[list[Any], str]]] = {
    "config.json": {
        "position_embedding_type": ([None, "absolute"], "of those that see distances, only deberta-v2 can be loaded"),
        "is_decoder": ([None, False], "only encoders can be loaded"),
        "add_cross_attention": ([None, False], "only encoders can be loaded"),
        "pruned_heads": ([None, {}], "only models with all their heads can be loaded"),
        "quantization_config": ([None], "save the model without quantisation; dtype int8 quantises it at loading"),
    },
    "tokenizer_config.json": {"split_by_punct": ([None, False], "save the tokenizer without it")},
    "special_tokens_map.json": {},
    "sentence_bert_config.json": {
        "transformer_task": ([None, "feature-extraction"], _ONLY_DENSE),
        "module_output_name": ([None, "token_embeddings"], _ONLY_DENSE),
        "modality_config": ([None, {}, {"text": _TEXT}], _ONLY_DENSE),
        "query_expansion": ([None], _ONLY_DENSE),
        "query_length": ([None], _RESAVE),
        "document_length": ([None], _RESAVE),
        "model_args": ([None, {}], _RESAVE),
        "model_kwargs": ([None, {}], _RESAVE),
    },
    "config_sentence_transformers.json": {"model_type": (["SentenceTransformer"], _ONLY_DENSE)},
    "1_Pooling/config.json": {"include_prompt": ([None, True], "prompts are always pooled with their texts")},
}
# In model_args and model_kwargs: how a model is loaded, not what it computes; the dtype is an option of from_pretrained.
_LOADING = {
    *("torch_dtype", "dtype", "attn_implementation", "low_cpu_mem_usage", "device_map", "use_safetensors"),
    *("trust_remote_code", "add_pooling_layer", "token", "revision", "local_files_only"),
}


class FieldsOfConfig(dict[str, Any]):
    """config.json; what the reader of an architecture has not asked for is left in `not_read`."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.not_read = dict(fields)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, None or `default` where it is absent; it counts as read."""
        self.not_read.pop(name, None)
        return super().get(name, default)


def check_settings(settings: Mapping[str, Any], where: object, file: str) -> None:
    """Look each key of the settings up in the tables of a file, "tokenizer_config.json" for example; `where` they are is said.

    A value that would change the vectors in a way that is not supported is a ModelError.
    """
    unknown = []
    for key, value in settings.items():
        if key in ONLY[file]:
            supported, remedy = ONLY[file][key]
            if key in ("model_args", "model_kwargs") and isinstance(value, dict) and value.keys() <= _LOADING:
                continue
            if value not in supported:
                raise ModelError(f"{where}: {key} = {value!r:.80} is not supported: {remedy}")
        elif key not in OBEYED[file] and key not in WITHOUT_EFFECT[file]:
            if key.endswith("_token") and "cls_token" in OBEYED[file]:  # a special token may have any name
                continue
            unknown.append(repr(key)[1:-1][:80])
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        warnings.warn(f"{where}: not used, because nothing is known of it: {shown}", stacklevel=5)


def nested_settings(settings: Mapping[str, Any], where: object, *names: str) -> dict[str, Any]:
    """What a settings file holds under the first of these names, which all mean the same; ModelError if it is no object."""
    value: Any = next((settings[name] for name in names if settings.get(name) is not None), {})
    if not isinstance(value, dict):
        raise ModelError(f"{where}: {names[0]} must be an object {{...}}, found {value!r:.50}")
    return {key: each for key, each in value.items() if key not in _LOADING}
