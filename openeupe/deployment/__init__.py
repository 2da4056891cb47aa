"""Encoder -> device: export, quantize, verify parity, measure."""
