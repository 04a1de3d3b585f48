"""Average precision in the manner of COCO, LVIS and YouTube-VIS, from files to numbers."""
