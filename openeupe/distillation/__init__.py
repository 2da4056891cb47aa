"""Teachers -> students: heads, statistics, loss, stages, recipes and runs."""
