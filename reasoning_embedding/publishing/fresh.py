"""Run a model card's code as a reader would, and embed with it.

A script, not a module of the package: ``python -P fresh.py`` in a process of its own, where nothing of this
project is imported. Standard input: JSON with ``probes`` (a list of ``[prompt, texts]``), ``revisions``
(a list of ``{library: code}``) and ``output`` (the ``.npz`` file to write, an array
``REVISION/LIBRARY/PROBE`` each).
"""

import contextlib
import io
import json
import sys


def main() -> None:
    """Execute each block of code and embed the probes with what it defined."""
    import numpy as np

    job = json.load(sys.stdin)
    arrays = {}
    for index, codes in enumerate(job["revisions"]):
        for library, code in codes.items():
            names: dict = {}
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, f"<code for {library} on the model card>", "exec"), names)
            for number, (prompt, texts) in enumerate(job["probes"][index]):
                if library == "sentence-transformers":
                    # An empty prompt is no prompt; without one the model's default would be put before the text.
                    unit = {"normalize_embeddings": True} if "normalize_embeddings=True" in code else {}
                    vectors = names["model"].encode(texts, prompt=prompt, show_progress_bar=False, **unit)
                else:
                    vectors = names["embed"](texts, prompt).float().numpy()
                arrays[f"{index}/{library}/{number}"] = np.asarray(vectors, dtype=np.float32)
    if "reasoning_embedding" in sys.modules:
        raise SystemExit("the card's code must not need the package that wrote the card")
    np.savez(job["output"], **arrays)  # ty: ignore[invalid-argument-type]  # by name; they are numbers


if __name__ == "__main__":
    main()
