"""YouTube-VIS 2019 val: 302 videos, 40 classes; the ground truth is private.

Source: Yang et al., Video Instance Segmentation, ICCV 2019; login needed. Licence: annotations CC
BY 4.0. Layout:
`valid.json` (`annotations` is null), `valid/JPEGImages/<video>/<frame>.jpg`, every fifth frame. The
numbers of the paper come from the competition's server: the index has images and prompts but no
instances, predictions can be made and submitted, and nothing can be scored here. Prompts: boxes of
Mask2Former Swin-L tracks (`mask2former_results.json`). Known bad files: none.
"""

from hqsam_datasets.benchmarks.ytvislike import YtvisLike

BENCHMARK = YtvisLike(
    name="ytvis19", dataset_version="YouTube-VIS 2019 val", annotations="valid.json"
)
