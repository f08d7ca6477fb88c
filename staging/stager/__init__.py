"""The stager: what moves next over the link, and what gives way.

It knows where each expert is and what each is worth, and a user who owns time tells it what happens: a gate chose these
experts (``demand``), a predictor expects those (``prefetch``), a predictor of next use values them so (``set_values``),
the link is free (``grant``), a transfer passed a chunk (``preempt``) or is complete (``arrive``), a layer has run
(``release``), a layer's predictions are past (``expire``). It answers what to move, to which place, and who loses it.

``limits`` is what a circuit is generated with, and its registers; ``arguments`` what it may be told, ``answers`` what
it says; ``directory`` where experts are and who gives way; ``queue`` in which order they move; ``twin`` is the stager,
and the specification of the hardware. ``compiled`` holds the same commands for simulations, ``zero_time`` the same
decisions for hit rates, in which a transfer takes no time. ``speed`` measures.
"""
