"""Pure values and rules of the store: no I/O, no clock, no dependency but errors."""
