"""Training and fine-tuning with online hard-sample replay."""
