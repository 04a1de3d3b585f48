"""The ground floor: what every package of this repository needs, on NumPy, pycocotools and the standard library."""
