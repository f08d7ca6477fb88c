"""Which model a recording is of, where its file does not say."""

from catalog import ModelRecord, load_catalog
from catalog.errors import ForestageError


def routed_model(name: str | None, *, layers: int, top_k: int, origin: str) -> ModelRecord:
    """The catalogue's record of a recording with ``layers`` MoE layers and ``top_k`` ids a row.

    Args:
        name: the model where it is known; ``None`` takes the one record of that shape.
        layers: MoE layers in the recording.
        top_k: ids a row.
        origin: the file, for the error.

    Raises:
        ForestageError: if the record does not fit the shape, or none or several do.
    """
    catalog = load_catalog()
    if name is not None:
        record = catalog.find_model(name)
        if (record.moe_layers, record.top_k) != (layers, top_k):
            raise ForestageError(
                f"{origin}: expert_ids: {layers} layers of top-{top_k}, but {record.name} has {record.moe_layers} of "
                f"top-{record.top_k}; name the right model with --model"
            )
        return record
    fitting = [record for record in catalog.models if (record.moe_layers, record.top_k) == (layers, top_k)]
    if len(fitting) != 1:
        candidates = f"several have ({', '.join(r.name for r in fitting)})" if fitting else "none in the catalogue has"
        raise ForestageError(
            f"{origin}: the file names no model, and {candidates} {layers} MoE layers of "
            f"top-{top_k}; name it with --model"
        )
    return fitting[0]
