"""Stages, flows, report and command line of the HQ-SAM pipeline."""
