"""Segment: one case with one model, and its result in the scene."""
