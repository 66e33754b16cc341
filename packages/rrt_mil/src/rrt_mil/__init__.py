"""R2T-MIL: Feature Re-Embedding for Computational Pathology (CVPR 2024)."""
