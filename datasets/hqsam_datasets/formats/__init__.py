"""Files between the stages: images, tar shards, parquet tables, and shards on object stores."""
