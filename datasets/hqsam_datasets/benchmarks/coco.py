"""COCO val2017: 5,000 photographs, 36,781 objects of 80 classes.

Source: Lin et al., Microsoft COCO, ECCV 2014. Licence: annotations CC BY 4.0, images under their
Flickr terms. Layout: `val2017/%012d.jpg`; `annotations/instances_val2017.json` in
`annotations_trainval2017.zip`: polygons, run lengths for crowds, sparse category ids 1..90. Some
images are grey. Prompts: boxes of FocalNet-L DINO in the COCO results format (no published file;
see docs). Known bad files: none.
"""

from hqsam_datasets.benchmarks.cocolike import CocoLike

BENCHMARK = CocoLike(
    name="coco",
    kind="coco",
    dataset_version="COCO val2017",
    class_agnostic=False,
    annotations="instances_val2017.json",
    detections="coco_instances_results.json",
    locate=lambda image: f"val2017/{image['file_name']}",
)
