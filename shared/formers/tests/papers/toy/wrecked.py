"""A paper whose package does not load."""

raise ImportError("the field's library\nis missing")
