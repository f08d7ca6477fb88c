"""The memory of the text: n-gram tables, log of routing and identity rows in far memory; and the image's loader."""
