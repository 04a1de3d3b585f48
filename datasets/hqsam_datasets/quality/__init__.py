"""The quality gate: Great Expectations on the manifests, and its page."""
