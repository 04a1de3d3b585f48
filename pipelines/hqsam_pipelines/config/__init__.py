"""params.yaml, its profiles and schema, the process environment, and DVC's graph: what a run is told. Cannot move a number."""
