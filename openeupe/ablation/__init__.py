"""Studies: recipes, seeds and suites, run, judged and compared."""
