"""Prototypes, difficulty scores and the forgettable sample bank: the method, free of trainer and files."""
