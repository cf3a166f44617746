"""Names of the files of a training in the folder of a run. It does not import torch."""

TRAINING_FOLDER = "training"  # in the folder of a run
METADATA_FILE, WEIGHTS_FILE, BACKBONE_FILE = "method.json", "weights.safetensors", "backbone.safetensors"
CALIBRATION_FILE = "calibration.json"  # bias and candidates for predictions, which the validation split chose
STATE_FILE = "last.safetensors"  # a training resumes from it
RUN_IDS_FILE = "loggers.json"  # the id of the training in each tracker, to go on under it
LOG_FILE = "log.txt"  # in the folder of a run: the output of the process of its own that ran it
