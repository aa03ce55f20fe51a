"""The panels of the module: thin Qt code over decisions in plain Python."""
