"""What is here is installed by ``test_third_party.py``, never imported by pytest."""

collect_ignore_glob = ["*"]
