"""What a release without one of its lists cannot be used for."""

# What a run's settings must be, as the end of a sentence, and of a line of `python -m data check`.
WITHOUT = {
    "noisy_train": "without it 'train-split' must be clean, unless sites have training images of their own",
    "clean_train": (
        "without it 'train-split' must be noisy or noisy-mini, 'val-split' must not be clean_train, and methods that"
        " learn from clean images cannot run"
    ),
    "clean_val": (
        "without it 'val-split' must not be clean_val, and 'eval-split' must be own if 'fraction-evaluate' is above 0"
    ),
    "clean_test": "without it 'test-split' must be none",
}
