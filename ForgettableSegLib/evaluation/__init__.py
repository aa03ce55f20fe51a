"""Measures of segmentation quality, their statistics and reports."""
