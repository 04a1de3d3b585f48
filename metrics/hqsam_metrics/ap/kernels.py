"""Loops of AP that are compiled where they pay off (see `hqsam_base.compiled`)."""
