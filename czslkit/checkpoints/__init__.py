"""Methods on disk: folders of trained methods, and checkpoints of the methods' authors."""
