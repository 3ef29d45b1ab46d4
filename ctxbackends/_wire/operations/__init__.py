"""Operations besides generation: model lists, status, embeddings, loading, token counts."""
