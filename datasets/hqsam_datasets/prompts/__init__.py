"""Prompts from masks: boxes, points, noisy masks."""
