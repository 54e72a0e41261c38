"""Views of images, made on the accelerator: augmentation and the published methods' recipes."""
