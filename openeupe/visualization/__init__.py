"""Tokens -> pictures."""
