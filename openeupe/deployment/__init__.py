"""Encoder -> device: export, quantize, prove parity, measure."""
