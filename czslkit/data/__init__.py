"""Datasets: the field's folder layout, splits and their integrity, images, and rendered worlds to try things on."""
