"""The evaluation of methods and of score files: scores go through the metrics, and numbers and details come out."""
