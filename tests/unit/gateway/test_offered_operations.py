"""A model offers the operations that its card declares and its signature carries."""

import pytest

from gateway.errors import UnsupportedOption
from gateway.model_card.card import parse
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.generate_image import GenerateImage
from gateway.operations.transcribe import Transcribe
from gateway.signatures.registry import SIGNATURES
from gateway.triton.model_config import ModelConfig


@pytest.fixture
def catalog() -> Catalog:
    """A catalog with one model, which declares an operation that no tensor of its signature carries."""
    catalog = Catalog(["127.0.0.1:1"], interval=1, timeout=1)
    (server,) = catalog.servers
    signature = SIGNATURES["image"]
    parameters = {"signature": "image", "operations": '["generate_image", "transcribe", "fly"]'}
    card = parse(ModelConfig("shapes", parameters, signature.inputs, signature.outputs, b""))
    server.is_reachable = True
    server.models = (Model(name="shapes", server=server, card=card, signature=signature, created=0),)
    return catalog


def test_a_model_offers_no_operation_that_its_signature_does_not_carry(catalog: Catalog) -> None:
    (model,) = catalog.models()
    assert model.operations == frozenset({"generate_image"})
    assert catalog.get("shapes", GenerateImage) is model
    with pytest.raises(UnsupportedOption):
        catalog.get("shapes", Transcribe)


def test_the_first_model_for_an_operation_can_run_it(catalog: Catalog) -> None:
    found = catalog.first_model_for(GenerateImage)
    assert found is not None and found.name == "shapes"
    assert catalog.first_model_for(Transcribe) is None
