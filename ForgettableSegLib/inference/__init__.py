"""Segmenting cases and mapping what is hard in them."""
