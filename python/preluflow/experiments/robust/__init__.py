"""What Figures 2 and 7 share: the models, how they are trained and measured, the curves and the table."""
