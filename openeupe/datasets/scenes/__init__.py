"""Procedural renderer: labelled scenes that need no download."""
