"""Vision-language evaluation: a frozen encoder, a projector and a language model."""
