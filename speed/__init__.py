"""Speed, memory and size of OpenEUPE against peers and limits; figures: docs/speed.md."""
