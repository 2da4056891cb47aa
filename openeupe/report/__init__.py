"""Run folder -> HTML report."""
