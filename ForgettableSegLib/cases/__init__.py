"""Cases: files and geometry, case lists, validation, preprocessing and split."""
