"""What ``preluflow.sweep`` is made of: the grid, who a function is, workers, the folder, the loop, the dataset."""
