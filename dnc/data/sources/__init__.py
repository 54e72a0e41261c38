"""Where images come from: arrays, folders, tables, TensorFlow Datasets, packages."""
