"""What the training settings may be."""

from __future__ import annotations

CHOICES: dict[str, tuple[str, ...]] = {
    "preset": ("recommended", "paper"),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("poly", "cosine"),
    "loss": ("dice_ce", "ce", "balanced", "ga_dice_ce", "tversky", "focal", "boundary", "boundary_dou"),
    "aux_loss": ("none", "scdl"),
    "architecture": ("unet", "attention_unet", "unetr", "nnunet"),
    "fusion": ("residual", "visual_query", "literal", "none"),
    "text": ("auto", "open_clip", "file", "onehot", "random", "learned"),
    "score_mode": ("bounded", "zscore", "paper"),
    "score_reduce": ("class", "pixel"),
    "score_features": ("logits", "penultimate"),
    "prototypes": ("ema", "scdl"),
    "selection": ("score", "loss", "random", "foreground", "T1", "T2", "T3", "T4"),
    "admission": ("band", "topk", "forgetting"),
    "replacement": ("random", "fifo", "score"),
    "store": ("reference", "patch"),
}

# (lowest, highest) allowed value, both included; None is unbounded.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "batch_size": (1, None),
    "iterations": (1, None),
    "epochs": (1, None),
    "minutes": (0.01, None),
    "learning_rate": (1e-8, 10),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "gradient_clip": (0.001, None),
    "warm_up": (0, 0.9),
    "weight_average": (0, 0.99999),
    "aux_weight": (0, 100),
    "score_eps": (1e-12, None),
    "prototype_beta": (0, 0.99999),
    "prototype_min_count": (0, None),
    "rho": (0.001, 1),
    "bank_batches": (1, 1000),
    "replay_every": (1, None),
    "replay_weight": (0, 100),
    "foreground_oversampling": (0, 1),
    "seed": (0, 2**31 - 1),
    "validate_every": (1, None),
    "checkpoint_every": (1, None),
    "dynamics_every": (1, None),
    "dynamics_share": (0.001, 1),
    "num_heads": (1, 64),
    "context_slices": (0, 5),
}
