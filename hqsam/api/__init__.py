"""Classes for people who come from ``segment_anything``; ``from hqsam import ...`` gives them."""
