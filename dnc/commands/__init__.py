"""The commands `dnc train`, `dnc embed` and `dnc analyze`: flags in, one call, an exit code. Nothing imports them."""
