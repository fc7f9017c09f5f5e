"""What is done: the driver, the trials that Tune starts for it, and what each stage computes."""
