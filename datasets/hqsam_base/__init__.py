"""The ground floor: what the data side and the metrics share and neither owns.

NumPy, OpenCV, pycocotools and the standard library, nothing else: the base install has no more.
"""
