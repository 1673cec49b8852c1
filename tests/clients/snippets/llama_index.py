from llama_index.core.embeddings import BaseEmbedding
from pydantic import Field

from minisbert import SentenceEncoder


class LlamaIndexEmbedding(BaseEmbedding):
    model: SentenceEncoder = Field(exclude=True)

    def _get_text_embedding(self, text):
        return self.model.encode_document(text).tolist()

    def _get_text_embeddings(self, texts):
        return self.model.encode_document(texts).tolist()

    def _get_query_embedding(self, query):
        return self.model.encode_query(query).tolist()

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)
