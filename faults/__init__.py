"""What happens when things go wrong: real processes, real signals, real files (``make faults``)."""
