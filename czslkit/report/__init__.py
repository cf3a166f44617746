"""Reports on results: the frame of all cells, tables in every format, significance and published numbers."""
