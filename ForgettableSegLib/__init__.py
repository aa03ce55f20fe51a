"""ForgettableSeg: text-guided segmentation of medical images, fine-tuned on the hard samples of a user's cases."""

from __future__ import annotations

__version__ = "0.1.0"
