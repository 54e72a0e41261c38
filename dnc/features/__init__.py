"""Features as files, and features of any images from any encoder."""
