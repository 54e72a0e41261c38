"""Published encoders: their weights, their architectures, their preparation of images."""
