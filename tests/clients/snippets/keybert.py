from keybert.backend import BaseEmbedder


class KeybertEmbedder(BaseEmbedder):
    def embed(self, documents, verbose=False):
        return self.embedding_model.encode(documents, show_progress_bar=verbose)
