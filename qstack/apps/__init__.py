"""Applications, and what several of them need."""
