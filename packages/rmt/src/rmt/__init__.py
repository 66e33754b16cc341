"""RMT: Retentive Networks Meet Vision Transformers (CVPR 2024)."""
