"""Explanations: the attention of each text to the parts of an image, and the contribution of each attention stage."""
