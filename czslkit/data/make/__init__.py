"""Make datasets: import your own pictures, and write small replicas of the published datasets."""
