"""Everything measured of labeled features at once, and several encoders side by side."""
