from bertopic.backend import BaseEmbedder


class BertopicEmbedder(BaseEmbedder):
    def embed(self, documents, verbose=False):
        return self.embedding_model.encode(documents, show_progress_bar=verbose)
