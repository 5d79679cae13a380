"""`tamiyo/Training-v0`: real networks in training, hundreds side by side as one tensor program."""
