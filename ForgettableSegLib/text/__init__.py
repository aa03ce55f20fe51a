"""Text prompts and their embeddings."""
