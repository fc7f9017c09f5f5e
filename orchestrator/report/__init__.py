"""What comes out, from the store alone: cells, layouts of the papers, figures, and status."""
