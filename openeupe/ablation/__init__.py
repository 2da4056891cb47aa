"""Studies: recipes, seeds and suites, trained, evaluated and compared."""
