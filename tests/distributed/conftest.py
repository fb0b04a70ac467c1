"""What each forked rank would import in seconds, the parent imports once."""

from __future__ import annotations

import pytest

#: The last module that an engine imports.
IMPORTS = {
    "fsdp2": "reasoning_embedding.training.engines.fsdp2",
    **dict.fromkeys(("zero1", "zero2", "zero3"), "deepspeed.runtime.zero.muon.muon_optimizer"),
}


@pytest.fixture(autouse=True)
def _forked_ranks_share_imports(request: pytest.FixtureRequest) -> None:
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if module := IMPORTS.get(parameters.get("kind", "")):
        pytest.importorskip(module)
