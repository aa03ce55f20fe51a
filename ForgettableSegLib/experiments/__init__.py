"""Plans of experiments, their regimes of data, their results and reports."""
