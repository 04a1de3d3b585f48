"""From a section `archives.<name>` to verified files on disk and their extracted tree."""
