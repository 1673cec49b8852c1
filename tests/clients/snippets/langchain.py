from langchain_core.embeddings import Embeddings


class LangchainEmbeddings(Embeddings):
    def __init__(self, model):
        self.model = model

    def embed_documents(self, texts):
        return self.model.encode_document(texts).tolist()

    def embed_query(self, text):
        return self.model.encode_query(text).tolist()
