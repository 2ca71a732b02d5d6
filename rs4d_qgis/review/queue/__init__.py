"""Which objects are looked at, one after the other, and what is decided on them."""
