"""Task heads: an encoder's patch tokens -> answers; fitting, saving and loading them."""
