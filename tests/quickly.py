"""XLA's flags for programs that run once or twice: the last two bring those of one analysis from 20 s to 7 s."""

XLA_FLAGS = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)
