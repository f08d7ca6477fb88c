"""The prefetch engine, whole: what it is told, what it does, in which order and when. The specification of the RTL.

``events`` says what enters, leaves and is counted; ``limits`` and ``settings`` what is generated and what registers
hold; ``twin`` what happens.
"""
