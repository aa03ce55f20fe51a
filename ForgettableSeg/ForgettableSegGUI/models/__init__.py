"""Models: what is on this computer."""
