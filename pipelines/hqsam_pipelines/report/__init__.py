"""The report stage: numbers beside the paper's, tables, charts, pictures, one HTML page."""
