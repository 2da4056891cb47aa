"""An encoder -> other people: folders that timm and transformers open, model cards, a hub."""
