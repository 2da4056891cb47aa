"""Run folder -> one page that tells its story."""
