"""Masks, alone or many at a time: run-length codes, boundary bands, IoU, J and F."""
