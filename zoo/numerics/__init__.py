"""Mathematics that two or more families use: nothing but torch."""
