"""Scripts that made the documents; README.md lists them."""
