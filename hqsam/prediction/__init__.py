"""From the prompts of a benchmark, or of one image, to masks: the predict stage and what `hqsam predict` shares with it."""
