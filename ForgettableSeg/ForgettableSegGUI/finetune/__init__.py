"""Fine-tune: the training cases, the run, and whether it was worth it."""
