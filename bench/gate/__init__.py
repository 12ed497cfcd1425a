"""Whether the machine code of the kernels is as cheap as it was, for GPUs that are not here."""
