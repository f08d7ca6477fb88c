"""One module per format: what it can express, and how it is written."""
