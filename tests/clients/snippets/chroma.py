from chromadb import EmbeddingFunction
from chromadb.utils.embedding_functions import register_embedding_function

from minisbert import SentenceEncoder


@register_embedding_function
class ChromaEmbeddingFunction(EmbeddingFunction):
    def __init__(self, source):
        self.source, self.model = source, SentenceEncoder.from_pretrained(source)

    def __call__(self, input):
        return list(self.model.encode_document(input))

    def embed_query(self, input):
        return list(self.model.encode_query(input))

    def default_space(self):
        return "cosine"

    @staticmethod
    def name():
        return "minisbert"

    def get_config(self):
        return {"source": self.source}

    @staticmethod
    def build_from_config(config):
        return ChromaEmbeddingFunction(config["source"])
