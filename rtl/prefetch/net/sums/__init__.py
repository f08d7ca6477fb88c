"""The sums of the net: rows are added to them as routing becomes known."""
