"""Tokens -> scores."""
