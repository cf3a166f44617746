"""Explanations: how strongly each text attends to each part of an image, and how much each attention stage adds."""
