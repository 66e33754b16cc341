"""DRCT: Saving Image Super-Resolution away from Information Bottleneck (CVPRW 2024)."""
