"""The model: backbones, the HQ decoder, checkpoints."""
