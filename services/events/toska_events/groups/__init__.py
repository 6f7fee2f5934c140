"""Who is how far in the log: plain objects that are fed with events and moments, and do no I/O."""
