"""What a person runs: the command line, and the reports it writes. Draws the same Pictures as everything else."""
