"""Moving knowledge into a student: losses and partition, the table of methods, the loop."""
