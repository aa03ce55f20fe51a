"""Setup: what is installed, installing the rest, checking the device."""
