from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta


class MtebEncoder(AbsEncoder):
    def __init__(self, model, name):
        self.model = model
        self.mteb_model_meta = ModelMeta.create_empty({"name": name, "revision": model.fingerprint()})

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **options):
        encode = {"query": self.model.encode_query, "document": self.model.encode_document}.get(prompt_type, self.model.encode)
        return encode((text for batch in inputs for text in batch["text"]), **options)
