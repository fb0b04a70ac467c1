# docker build -f docker/cpu.Dockerfile -t reasoning-embedding:cpu .
# docker run --rm -v "$PWD/runs:/data/runs" reasoning-embedding:cpu quickstart
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md CITATION.cff ./
COPY configs configs
COPY docs/schema docs/schema
COPY reasoning_embedding reasoning_embedding
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
      ".[eval,lineage,merge,mining,report,tracking]"

FROM python:3.11.13-slim-bookworm
# A C++ compiler builds the kernels for CPUs once; without one everything works, slower.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 user && install -d -o user /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH
USER user
WORKDIR /data
ENTRYPOINT ["rembed"]
CMD ["--help"]
