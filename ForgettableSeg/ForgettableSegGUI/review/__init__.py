"""Review: the heatmap, the hardest slices, the comparison with a reference, and files for others."""
