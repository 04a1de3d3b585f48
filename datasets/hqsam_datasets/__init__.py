"""Data part of the HQ-SAM pipeline: archives, samples, benchmarks, gates, shards, prompts.

Nothing in this package imports torch, Prefect or DVC. Conventions: images are ``uint8 [H, W, 3]``
RGB, masks
``bool [H, W]`` or soft ``uint8 [H, W]`` in 0..255 (foreground above 128), points ``(x, y)``, boxes
``xyxy`` with inclusive maxima where the official training code has them so, all in pixels.
"""
