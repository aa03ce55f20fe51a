"""Model packages: written, read, verified, installed and removed."""
