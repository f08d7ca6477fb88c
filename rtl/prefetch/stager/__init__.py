"""The stager as a circuit: what moves next over the link, and what gives way; ``staging.stager.twin`` specifies it."""
