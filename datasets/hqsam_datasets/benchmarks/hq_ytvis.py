"""HQ-YTVIS test: YouTube-VIS 2019 training videos with re-annotated masks.

Source: Ke et al., Video Mask Transfiner, ECCV 2022 (`ytvis_hq-test.json`); annotation licence not
stated. Layout: `train/JPEGImages/<video>/<frame>.jpg` of YouTube-VIS 2019 (login needed, CC BY
4.0), every fifth annotated. Masks are uncompressed run lengths, one entry a frame, null when the
object is away. Prompts: boxes of Mask2Former Swin-L tracks, per object and frame, from its
YouTube-VIS results (`[{video_id, category_id, score, segmentations}]`). The tracker was trained on
these videos. Known bad files: none.
"""

from hqsam_datasets.benchmarks.ytvislike import YtvisLike

BENCHMARK = YtvisLike(
    name="hq_ytvis", dataset_version="HQ-YTVIS test", annotations="ytvis_hq-test.json"
)
