"""The command line: one file for each family of commands; ``main`` gathers them."""
