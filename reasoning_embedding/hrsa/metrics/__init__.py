"""One definition a metric."""
