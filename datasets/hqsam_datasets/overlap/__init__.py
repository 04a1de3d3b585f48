"""The overlap gate: no training image may show what a benchmark is evaluated on."""
