"""One file a metric; each exposes ``SCORE`` (see `hqsam_metrics.base`)."""
