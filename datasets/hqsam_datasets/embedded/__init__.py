"""The embedded sample: procedural scenes, written in the published layouts of the real archives."""
