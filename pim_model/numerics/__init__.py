"""The arithmetic of the PIM expert unit, bit for bit: what `rtl/pim` computes, said in integers and float32.

`floats` is the number system, `activation` the activation unit; the rest builds experts from them.
"""
