"""ONNX files of a model."""
