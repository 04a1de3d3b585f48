"""Starting, watching and recording stages: DVC, Prefect, the stage host, training processes. Cannot move a number."""
