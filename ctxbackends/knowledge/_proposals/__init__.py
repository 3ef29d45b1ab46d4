"""Proposals: the model, the file, the store, the review and the export."""
