"""The U-Net and the text-guided fusion at its bottleneck."""
