"""UVO FrameSet val: 7,356 frames of 2,452 videos, every object, no classes.

Source: Wang et al., Unidentified Video Objects, ICCV 2021; frames of Kinetics-400 videos; licence
not stated. Layout: `UVO_frame_val.json` (COCO instances, one category `object`; identical in v0.5
and v1.0) and
`uvo_videos_sparse_frames/<clip>/<frame>.png`; a third party's zip of just these frames has
`collect_val_images` for the folder's name. Prompts: boxes of the COCO-trained detector, its classes
ignored. Frames of a clip are resampled together. Known bad files: none.
"""

from hqsam_datasets.benchmarks.cocolike import CocoLike

BENCHMARK = CocoLike(
    name="uvo",
    kind="coco",
    dataset_version="UVO FrameSet v0.5 val",
    class_agnostic=True,
    annotations="UVO_frame_val.json",
    detections="uvo_instances_results.json",
    locate=lambda image: f"uvo_videos_sparse_frames/{image['file_name']}",
    video_of=lambda image: str(image["file_name"]).split("/")[0],
)
