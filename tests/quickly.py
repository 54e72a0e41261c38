"""XLA's flags for programs that run once or twice: the last two bring those of one analysis from 20 s to 7 s."""

from importlib import metadata

FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2]) >= (0, 11):
    FLAGS.pop(1)  # XLA no longer knows it, and an unknown flag ends the process
XLA_FLAGS = " ".join(FLAGS)
