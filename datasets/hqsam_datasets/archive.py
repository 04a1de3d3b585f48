"""Archives: fetched from their mirrors (`hqsam_datasets.fetch`) and unpacked (`hqsam_datasets.extract`).

Code that only reads extracted trees imports `extract` alone: a change of the download code is then no change of it.
"""

from hqsam_datasets.archive_spec import ArchiveFile, ArchiveSpec
from hqsam_datasets.extract import extracted, find_root, list_files
from hqsam_datasets.fetch import fetch
from hqsam_datasets.reporting import Report

__all__ = ["ArchiveFile", "ArchiveSpec", "Report", "extracted", "fetch", "find_root", "list_files"]
