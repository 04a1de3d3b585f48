"""The stages of dvc.yaml, one module per verb; each exposes `STAGE`."""
