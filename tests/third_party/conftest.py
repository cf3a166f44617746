"""Pytest imports nothing in this folder; ``test_third_party.py`` installs it."""

collect_ignore_glob = ["*"]
