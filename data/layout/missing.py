"""What a release without one of its lists cannot be used for."""

# What a run's settings must be, as the end of a sentence, and of a line of `python -m data check`.
WITHOUT = {
    "noisy_train": "without it nobody can train but on clean train, with 'train-split' clean",
    "clean_train": (
        "without it 'train-split' must be noisy or noisy-mini, 'val-split' not clean_train, and methods that learn from"
        " clean images cannot"
    ),
    "clean_val": "without it 'val-split' must be another one, and with 'fraction-evaluate' 'eval-split' must be own",
    "clean_test": "without it 'test-split' must be none",
}
