"""The base die of the PIM expert unit: what it decides, keeps and hands on."""
