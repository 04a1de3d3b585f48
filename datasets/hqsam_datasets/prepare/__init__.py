"""The stages that turn extracted trees into what trains and evaluates: normalise, index, shard, augment."""
