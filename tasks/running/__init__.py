"""How stages run: as products, under a lock, on workers and devices."""
